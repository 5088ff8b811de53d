package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/locum-ha/locum/internal/config"
)

// runner is one run without a configuration file.
type runner struct {
	app     *app
	flags   *runFlags
	command []string
	invited string // LOCUM_JOIN
	dir     string
	one     config.Application
	told    sync.WaitGroup
}

func (r *runner) keyFile() string   { return filepath.Join(r.dir, "seal.key") }
func (r *runner) tokenFile() string { return filepath.Join(r.dir, "root-token") }

func (r *runner) nodeName() string {
	if r.flags.nodeName != "" {
		return r.flags.nodeName
	}
	name, err := os.Hostname()
	if err != nil {
		return "node"
	}
	return name
}

// config is what the flags stand for.
func (r *runner) config() (*config.Config, error) {
	f := r.flags
	c, err := r.storage()
	if err != nil {
		return nil, err
	}
	c.ClusterName, c.NodeName = r.one.Name, f.nodeName
	if f.level != "" {
		c.LogLevel = f.level
	}
	l := config.NewListener("tcp")
	l.Address, l.TLSDisable = f.address, true
	c.Listeners = []config.Listener{l}
	c.Seal.Type, c.Seal.Static.KeyFile = "static", r.keyFile()
	one := r.one
	one.Listen = config.OneOrMore(f.listen)
	if len(f.listen) == 0 && !strings.HasPrefix(one.Upstream, "tcp:") {
		one.Listen = config.OneOrMore{"0.0.0.0:8080"}
	}
	c.Applications = []config.Application{one}
	if c.Storage.Type == "raft" && r.invited != "" {
		_, addresses, err := parseInvitation(r.invited)
		if err != nil {
			return nil, err
		}
		for _, address := range addresses {
			c.Storage.Raft.RetryJoin = append(c.Storage.Raft.RetryJoin, config.RetryJoin{LeaderAPIAddr: address})
		}
	}
	return c, c.Complete(f.source)
}

// storage is a configuration that has nothing but its data stores.
func (r *runner) storage() (*config.Config, error) {
	given := func(flag, variable string) string {
		if flag = strings.TrimSpace(flag); flag != "" {
			return flag
		}
		return strings.TrimSpace(r.app.variable(variable))
	}
	text, lock := given(r.flags.storage, "LOCUM_STORAGE"), given(r.flags.haStorage, "LOCUM_HA_STORAGE")
	if text == "" || text == "raft" {
		c := config.Default()
		c.Storage = config.NewStorage("raft")
		c.Storage.Raft.Path = filepath.Join(r.dir, "raft")
		if lock != "" {
			return nil, withHint(errors.New("the embedded store has its own lock"), "name a -storage, or leave -ha-storage out")
		}
		return c, nil
	}
	block, err := storeBlock("storage", text)
	if err != nil {
		return nil, err
	}
	if lock != "" {
		second, err := storeBlock("ha_storage", lock)
		if err != nil {
			return nil, err
		}
		block += second
	}
	return config.Parse("-storage", []byte(block))
}

// storeBlock writes a store's block from "postgres://…" or "TYPE name=value …".
func storeBlock(block, text string) (string, error) {
	if strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://") {
		return fmt.Sprintf("%s \"postgresql\" {\n  connection_url = %s\n}\n", block, quoteHCL(text)), nil
	}
	words := strings.Fields(text)
	if strings.Contains(words[0], "://") {
		return "", withHint(fmt.Errorf("-%s: this kind of URL is not known", strings.ReplaceAll(block, "_", "-")), // not quoted: it may hold a password
			"write the type and its settings, such as \"mysql address=db:3306 password_file=…\"; locum help config lists them")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s {\n", block, quoteHCL(words[0]))
	for _, word := range words[1:] {
		name, value, ok := strings.Cut(word, "=")
		if !ok {
			return "", withHint(errors.New("-"+strings.ReplaceAll(block, "_", "-")+": a setting without a value"), "write them as name=value, with spaces between")
		}
		if value != "true" && value != "false" && strings.Trim(value, "0123456789") != "" || value == "" {
			value = quoteHCL(value)
		}
		fmt.Fprintf(&b, "  %s = %s\n", name, value)
	}
	b.WriteString("}\n")
	return b.String(), nil
}

// founded keeps the root token of the cluster that this machine has begun, and says how others get in.
func (r *runner) founded(rootToken string) {
	if err := writeSecret(r.tokenFile(), rootToken); err != nil {
		r.app.say("error: the root token is not kept: %v", err)
		return
	}
	r.told.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		line, err := r.invitation(ctx, false)
		if err != nil {
			r.app.say("error: no line for other machines: %v; ask for it with locum run -invite", err)
			return
		}
		r.app.say("\nA new cluster was begun here. On every other machine run:\n\n  %s\n", line)
		if names := r.storageVariables(); names != "" {
			r.app.say("with the same %s in its environment as here: what may hold a password is not printed.\n", names)
		}
	})
}

// storageVariables names what the other machines need in their environment besides the line.
func (r *runner) storageVariables() string {
	var names []string
	if r.flags.storage == "" && r.app.variable("LOCUM_STORAGE") != "" {
		names = append(names, "LOCUM_STORAGE")
	}
	if r.flags.haStorage == "" && r.app.variable("LOCUM_HA_STORAGE") != "" {
		names = append(names, "LOCUM_HA_STORAGE")
	}
	return strings.Join(names, " and ")
}

// ready says, at a start that is not the first, where the line is to be had.
func (r *runner) ready() {
	if r.invited == "" && exists(r.tokenFile()) {
		r.app.say("For the line that lets other machines in: locum run -invite -- %s", shellWords(r.command))
	}
}

// showInvitation asks the node that runs on this machine.
func (r *runner) showInvitation(ctx context.Context, anew bool) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	line, err := r.invitation(ctx, anew)
	if err != nil {
		return withHint(err, "this takes the token in "+r.tokenFile()+", or LOCUM_TOKEN with the power of root, and locum run on this machine")
	}
	r.app.say("%s", line)
	return nil
}

// invitation gets the line, trying until ctx ends: the node may not be active yet.
func (r *runner) invitation(ctx context.Context, anew bool) (string, error) {
	token := r.app.variable("LOCUM_TOKEN")
	if data, err := os.ReadFile(r.tokenFile()); err == nil {
		token = strings.TrimSpace(string(data))
	}
	c, err := r.config()
	if err != nil {
		return "", err
	}
	method := http.MethodGet
	if anew {
		method = http.MethodPut
	}
	_, port, err := net.SplitHostPort(c.Listeners[0].Address)
	if err != nil {
		return "", err
	}
	host := "127.0.0.1"
	if given, _, _ := net.SplitHostPort(c.Listeners[0].Address); given != "" && given != "0.0.0.0" && given != "::" {
		host = given
	}
	for {
		secret, final, err := askInvitation(ctx, method, "http://"+net.JoinHostPort(host, port), token)
		if err == nil {
			return fmt.Sprintf("%s=%s@%s locum run %s", joinVariable, secret, c.APIAddr, r.sameFlags()), nil
		}
		if final {
			return "", err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return "", err
		}
	}
}

// askInvitation asks once; final says that asking again is of no use.
func askInvitation(ctx context.Context, method, address, token string) (secret string, final bool, err error) {
	q, err := http.NewRequestWithContext(ctx, method, address+"/v1/sys/invitation", bytes.NewReader(nil))
	if err != nil {
		return "", true, err
	}
	q.Header.Set("X-Vault-Token", token)
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		return "", false, err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if err != nil {
		return "", false, err
	}
	var said struct {
		Secret string   `json:"secret"`
		Errors []string `json:"errors"`
	}
	if err := json.Unmarshal(data, &said); err != nil || said.Secret == "" {
		return "", answer.StatusCode == http.StatusForbidden, fmt.Errorf("the node answers %s: %s", answer.Status, strings.Join(said.Errors, "; "))
	}
	return said.Secret, false, nil
}

// sameFlags are the flags that are the same on all machines, and the command.
func (r *runner) sameFlags() string {
	f := r.flags
	var words []string
	add := func(name, value, def string) {
		if value != def {
			words = append(words, "-"+name, value)
		}
	}
	add("name", f.application.name, "")
	add("upstream", f.application.upstream, "")
	add("health", f.application.health, "")
	add("address", f.address, "0.0.0.0:8400")
	for _, address := range f.listen {
		add("listen", address, "")
	}
	if f.application.warm {
		words = append(words, "-warm")
	}
	if f.storage != "" {
		add("storage", f.storage, "")
	}
	add("ha-storage", f.haStorage, "")
	return shellWords(append(append(words, "--"), r.command...))
}

// parseInvitation reads LOCUM_JOIN: SECRET@URL, more URLs behind commas.
func parseInvitation(text string) (secret []byte, addresses []string, err error) {
	first, rest, ok := strings.Cut(text, "@")
	if ok {
		secret, err = base64.RawURLEncoding.DecodeString(first)
	}
	if !ok || err != nil || len(secret) != 32 {
		return nil, nil, withHint(fmt.Errorf("%s is not an invitation", joinVariable), "copy the whole line that the first machine prints: "+joinVariable+"=…@http://… locum run …")
	}
	for address := range strings.SplitSeq(rest, ",") {
		if address = strings.TrimSpace(address); !strings.HasPrefix(address, "http://") && !strings.HasPrefix(address, "https://") {
			return nil, nil, withHint(fmt.Errorf("%s: %q is not the URL of a node", joinVariable, address), "copy the whole line that the first machine prints")
		}
		addresses = append(addresses, address)
	}
	return secret, addresses, nil
}

// shellWords writes words so that a shell reads them as they are.
func shellWords(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = word
		if word == "" || strings.ContainsAny(word, " \t\n\"'`$&|;<>()*?[]{}#~\\!") {
			quoted[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}
