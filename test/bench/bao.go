package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// bao is a three-node cluster of a server with Vault's API and configuration, OpenBao that is: on raft, plain HTTP, one key share,
// KV version 2 at secret/.
type bao struct {
	addresses []string // the first one is the active node's
	processes []*cluster.Process
	token     string
}

// startBao starts the binary that was given with -bao.
func startBao(ctx context.Context, binary, dir string) (*bao, error) {
	b := &bao{}
	for i := range 3 {
		b.addresses = append(b.addresses, fmt.Sprintf("127.251.1.%d:8200", i+1))
	}
	for i := range b.addresses {
		p, err := b.start(binary, filepath.Join(dir, strconv.Itoa(i)), i)
		if err != nil {
			return nil, errors.Join(err, b.close())
		}
		b.processes = append(b.processes, p)
	}
	if err := b.form(ctx); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bao) start(binary, dir string, i int) (*cluster.Process, error) {
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	host := strings.TrimSuffix(b.addresses[i], ":8200")
	var text strings.Builder
	fmt.Fprintf(&text, "api_addr = \"http://%s:8200\"\ncluster_addr = \"https://%s:8201\"\n", host, host)
	fmt.Fprintf(&text, "listener \"tcp\" {\n  address = \"%s:8200\"\n  cluster_address = \"%s:8201\"\n  tls_disable = true\n}\n", host, host)
	fmt.Fprintf(&text, "storage \"raft\" {\n  path = %q\n", data)
	for j, other := range b.addresses {
		if j != i {
			fmt.Fprintf(&text, "  retry_join {\n    leader_api_addr = \"http://%s\"\n  }\n", other)
		}
	}
	text.WriteString("}\n")
	if filepath.Base(binary) == "bao" { // as it comes a standby answers reads itself, with what may be old
		text.WriteString("disable_standby_reads = true\n")
	}
	config := filepath.Join(dir, "config.hcl")
	if err := os.WriteFile(config, []byte(text.String()), 0o600); err != nil {
		return nil, err
	}
	return cluster.StartProcess(filepath.Join(dir, "log"), nil, binary, "server", "-config="+config)
}

// form initialises the first node, lets the others join, unseals all, and mounts the entries.
func (b *bao) form(ctx context.Context) error {
	limit, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var made struct {
		Keys      []string `json:"keys"`
		RootToken string   `json:"root_token"`
	}
	err := cluster.Poll(limit, "the first node is initialised", func() error {
		return b.call(limit, 0, "PUT", "sys/init", map[string]int{"secret_shares": 1, "secret_threshold": 1}, &made)
	})
	if err != nil {
		return err
	}
	b.token = made.RootToken
	for i := range b.addresses {
		err := cluster.Poll(limit, b.addresses[i]+" is unsealed", func() error {
			var status struct{ Sealed, Initialized bool }
			if err := b.call(limit, i, "PUT", "sys/unseal", map[string]string{"key": made.Keys[0]}, &status); err != nil {
				return err
			}
			if status.Sealed {
				return errors.New("sealed")
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	mount := map[string]any{"type": "kv", "options": map[string]string{"version": "2"}}
	value := map[string]any{"data": map[string]string{"v": strings.Repeat("v", 1024)}}
	return cluster.Poll(limit, "all nodes serve", func() error {
		// What has entries there already refuses the mount.
		_ = b.call(limit, 0, "POST", "sys/mounts/secret", mount, nil)
		for i := range b.addresses {
			if err := b.call(limit, i, "POST", "secret/data/bench/read", value, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *bao) call(ctx context.Context, i int, method, path string, in, out any) error {
	once, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	data, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(once, method, "http://"+b.addresses[i]+"/v1/"+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	r.Header.Set("X-Vault-Token", b.token)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %d %s", method, path, answer.StatusCode, bytes.TrimSpace(text))
	}
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(text, out)
}

func (b *bao) close() error {
	for _, p := range b.processes {
		p.Kill()
	}
	return nil
}
