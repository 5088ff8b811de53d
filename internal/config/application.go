package config

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Application is one server that Locum protects.
type Application struct {
	// Name is the label of the block: the application's name, for people, metrics, and as its own place among the entries.
	// Letters, digits, ".", "_" and "-"; unique in the file, the same on all nodes.
	Name string `hcl:"name,label"`

	// Command is the program and its arguments, one string each; no shell reads it. It must stay in the foreground: when it ends,
	// whatever it has started is ended too. Absent for an application that someone else starts: then upstream is required.
	Command []string `hcl:"command"`

	// Environment is added to Locum's own for the command: { NAME = "value" }. Locum sets LOCUM_TERM, LOCUM_NODE, LOCUM_ROLE
	// (active or standby), LOCUM_APPLICATION, LOCUM_ADDR (a local address of this node's API), LOCUM_TOKEN (for this
	// application's own entries, locks and cache) and PORT (where upstream expects it to listen). Default: none.
	Environment map[string]string `hcl:"environment"`

	// WorkingDir is the directory that the command starts in. Default: Locum's own.
	WorkingDir string `hcl:"working_dir"`

	// User is the name or number of the user that the command runs as; Locum must be root for another one than its own. Default:
	// Locum's own.
	User string `hcl:"user"`

	// Group is the name or number of the group that the command runs as. Default: the user's group, with the groups that
	// the user is in.
	Group string `hcl:"group"`

	// Upstream is where the application answers: http://host:port, h2c://host:port (HTTP/2 without TLS, for gRPC),
	// https://host:port, unix:///path, or tcp://host:port for any protocol over TCP. Default, with command: http:// on
	// 127.0.0.1, at a free port that is told to the command in PORT.
	Upstream string `hcl:"upstream"`

	// Listen is where clients come, on every node: one host:port, or a list. Absent: nobody comes through Locum.
	Listen OneOrMore `hcl:"listen"`

	// Standby is cold (the application runs on the active node only) or warm (it runs on every node, and is told its role).
	// Default: "cold".
	Standby string `hcl:"standby"`

	// Health is how to see that the application works. Default: upstream accepts a connection; without upstream: the
	// command runs.
	Health Health `hcl:"health,block"`

	// OnActive are commands, each read by /bin/sh, or http:// or https:// URLs that get a POST, carried out in their order before
	// the application is started or, warm, before this node is active. One that fails, or takes longer than
	// hook_timeout, refuses: another node is tried. What a command leaves running is ended with it. Default: none.
	OnActive []string `hcl:"on_active"`

	// OnStandby is the same for the way back, after a cold application has ended. A warm one whose on_standby fails is
	// restarted. Default: none.
	OnStandby []string `hcl:"on_standby"`

	// HookTimeout is how long each of on_active and on_standby may take. Default: "10s".
	HookTimeout time.Duration `hcl:"hook_timeout"`

	// RoleFile is the absolute path of a file that tells the role: lines LOCUM_ROLE=active or standby, LOCUM_TERM=… and
	// LOCUM_NODE=…, replaced in one step at every change, removed at the end. Default: none.
	RoleFile string `hcl:"role_file"`

	// StartTimeout is how long the application may take until it is healthy. Default: "30s".
	StartTimeout time.Duration `hcl:"start_timeout"`

	// StopSignal asks the command to end. Default: "SIGTERM".
	StopSignal string `hcl:"stop_signal"`

	// StopTimeout is how long it then may take before everything that is left of it is killed. Default: "10s".
	StopTimeout time.Duration `hcl:"stop_timeout"`

	// Restarts is how often a command that ended, or does not answer, is started again within restart_window before the node steps
	// down so that another one can try; 0 lets it step down at once. Default: 3.
	Restarts int `hcl:"restarts"`

	// RestartWindow is for how long a restart counts. Default: "1m".
	RestartWindow time.Duration `hcl:"restart_window"`

	// Containment is how all that the command starts is held together, to be ended as a whole: "pid_namespace", "cgroup" (version
	// 2), "process_group", or "auto", which takes the first of them that this host grants. Default: "auto".
	Containment string `hcl:"containment"`

	// RepeatMethods are the HTTP methods whose requests may be sent again after a crash although they had been delivered,
	// beside those that are safe by definition (GET, HEAD, OPTIONS, TRACE). Default: none.
	RepeatMethods []string `hcl:"repeat_methods"`

	// Idempotency is who sees to requests with an Idempotency-Key: "locum", which stores their answers, or "application",
	// which knows by itself what it has done already, and gets them again. Default: "locum".
	Idempotency string `hcl:"idempotency"`

	// IdempotencyTTL is how long Locum knows a key again, from "1m" to "720h". Default: "24h".
	IdempotencyTTL time.Duration `hcl:"idempotency_ttl"`

	// IdempotencyMaxSize is how long the body of a request with an Idempotency-Key may be, and that of an answer which is kept, up to
	// "320KiB". A longer request is answered 413. Default: "256KiB".
	IdempotencyMaxSize Size `hcl:"idempotency_max_size"`

	// Mode is forward (a standby passes requests on to the active node) or redirect (it answers 307 with the address of the
	// application on the active node). Default: that of the forwarding block.
	Mode string `hcl:"mode"`

	// Address is the URL at which clients reach this application on this node: where the other nodes redirect them to while this one
	// is active. Default: the first listen, at the host of api_addr where that listens on all addresses.
	Address string `hcl:"address"`

	// TLSCertFile is the PEM file with the certificate and its chain, for clients that come with TLS. Read again on SIGHUP.
	// Default: none; clients come in plain.
	TLSCertFile string `hcl:"tls_cert_file"`

	// TLSKeyFile is the PEM file with the certificate's private key. Required where tls_cert_file is.
	TLSKeyFile string `hcl:"tls_key_file"`

	// TLSClientCAFile is a PEM file of authorities. When it is given, clients must show a certificate of one of them, and the
	// application gets it in the header Client-Cert (RFC 9440). Read again on SIGHUP. Default: none; no certificate is asked for.
	TLSClientCAFile string `hcl:"tls_client_ca_file"`

	// UpstreamCAFile is a PEM file of authorities to verify the certificate of an upstream https:// with. Default: the system's.
	UpstreamCAFile string `hcl:"upstream_ca_file"`

	// ProxyProtocol begins each connection to an upstream tcp:// with a PROXY protocol header, version 2, that names the client.
	// Default: false.
	ProxyProtocol bool `hcl:"proxy_protocol"`

	// XForwardedForAuthorizedAddrs are the proxies, as addresses or CIDR ranges, whose X-Forwarded-* and Client-Cert headers are believed, as
	// with a listener. Default: none.
	XForwardedForAuthorizedAddrs []string `hcl:"x_forwarded_for_authorized_addrs"`

	// MaxRequestSize is the longest body of a request; a longer one is answered 413. Default: no limit.
	MaxRequestSize Size `hcl:"max_request_size"`
}

// Health is how to see that an application works. At most one of path, tcp and command.
type Health struct {
	// Path is requested from upstream by HTTP; 200 to 399 is healthy.
	Path string `hcl:"path"`

	// TCP is a host:port that must accept connections.
	TCP string `hcl:"tcp"`

	// Command is a program with its arguments that must end with code 0.
	Command []string `hcl:"command"`

	// Interval is the time between two checks. Default: "1s".
	Interval time.Duration `hcl:"interval"`

	// Timeout is how long one check may take. Default: "1s".
	Timeout time.Duration `hcl:"timeout"`

	// Failures is how many checks in a row must fail until the application is restarted. Default: 3.
	Failures int `hcl:"failures"`
}

// NewApplication returns an application with its defaults.
func NewApplication(name string) Application {
	return Application{
		Name: name, Standby: "cold",
		Health:      Health{Interval: time.Second, Timeout: time.Second, Failures: 3},
		HookTimeout: 10 * time.Second, StartTimeout: 30 * time.Second,
		StopSignal: "SIGTERM", StopTimeout: stopTimeout,
		Restarts: 3, RestartWindow: time.Minute, Containment: "auto", Idempotency: "locum",
		IdempotencyTTL: 24 * time.Hour, IdempotencyMaxSize: 256 << 10,
	}
}

// ensureDefaults gives a command without an upstream a free port of its own.
func (a *Application) ensureDefaults() error {
	if a.Upstream != "" || len(a.Command) == 0 {
		return nil
	}
	address, err := freePort()
	if err != nil {
		return err
	}
	a.Upstream = "http://" + address
	return nil
}

// Warm reports whether the application runs on every node.
func (a *Application) Warm() bool { return a.Standby == "warm" }

// stopSignals are the signals that may ask an application to end.
var stopSignals = []string{"SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGKILL"}

// ownVariables are set by Locum.
var ownVariables = []string{"LOCUM_TERM", "LOCUM_NODE", "LOCUM_ROLE", "LOCUM_APPLICATION", "LOCUM_ADDR", "LOCUM_TOKEN"}

// longestStop is how long the applications may take to stop.
func (c *Config) longestStop() time.Duration {
	longest := stopTimeout
	for _, a := range c.Applications {
		longest = max(longest, a.StopTimeout)
	}
	return longest
}

// longestHooks is longestStop with what the applications' on_standby may take besides.
func (c *Config) longestHooks() time.Duration {
	longest := c.longestStop()
	for _, a := range c.Applications {
		longest = max(longest, a.StopTimeout+time.Duration(len(a.OnStandby))*a.HookTimeout)
	}
	return longest
}

func (c *checker) applications() {
	names := map[string]bool{}
	for i := range c.Applications {
		a, path := &c.Applications[i], fmt.Sprintf("application[%d]", i)
		if !nodeName.MatchString(a.Name) {
			c.fault(path, fmt.Sprintf("%q is not a name", a.Name), `write letters, digits, ".", "_" and "-", beginning with a letter or digit`)
		}
		name := strings.ToLower(a.Name) // as policies have it, which keep their tokens apart
		if names[name] {
			c.fault(path, fmt.Sprintf("a second application %q", a.Name), "give one of them another name, not in its upper and lower case alone")
		}
		names[name] = true
		c.application(a, path+".")
	}
}

func (c *checker) application(a *Application, path string) {
	if len(a.Command) == 0 && a.Upstream == "" {
		c.fault(path+"command", "neither a command nor an upstream", `write command = ["./server", "--port", "9000"], or upstream for an application that someone else starts`)
	}
	if len(a.Command) > 0 && a.Command[0] == "" {
		c.fault(path+"command", "the program's name is empty", `write it such as command = ["./server", "--port", "9000"]`)
	}
	if a.Upstream != "" {
		if err := checkUpstream(a.Upstream); err != nil {
			c.fault(path+"upstream", err.Error(), `write it such as "http://127.0.0.1:9000", "unix:///run/app.sock" or "tcp://127.0.0.1:9000"`)
		}
	}
	for _, address := range a.Listen {
		if _, _, err := splitAddress(address); err != nil {
			c.fault(path+"listen", err.Error(), `write it such as "0.0.0.0:8080"`)
		}
	}
	c.oneOf(path+"standby", a.Standby, "cold", "warm")
	c.oneOf(path+"stop_signal", a.StopSignal, stopSignals...)
	c.oneOf(path+"containment", a.Containment, "auto", "pid_namespace", "cgroup", "process_group")
	c.oneOf(path+"idempotency", a.Idempotency, "locum", "application")
	c.health(a, path+"health.")
	c.serving(a, path)
	for name, hooks := range map[string][]string{"on_active": a.OnActive, "on_standby": a.OnStandby} {
		for _, hook := range hooks {
			c.hook(path+name, hook)
		}
	}
	if a.RoleFile != "" && !filepath.IsAbs(a.RoleFile) {
		c.fault(path+"role_file", fmt.Sprintf("%q is not absolute", a.RoleFile), "write the whole path, such as \"/run/locum/orders.role\"")
	}
	for name, d := range map[string]time.Duration{
		"hook_timeout": a.HookTimeout, "start_timeout": a.StartTimeout, "restart_window": a.RestartWindow,
	} {
		if d <= 0 {
			c.fault(path+name, "no time at all", "write a duration such as \"10s\"")
		}
	}
	if a.Restarts < 0 {
		c.fault(path+"restarts", "negative", "write 0 to step down at the first failure")
	}
	if len(a.Command) == 0 && (a.User != "" || a.Group != "" || a.WorkingDir != "" || len(a.Environment) > 0) {
		c.fault(path+"command", "user, group, working_dir and environment are for a command, and there is none", "write command, or remove them")
	}
	for name := range a.Environment {
		switch {
		case name == "" || strings.ContainsAny(name, "=\x00"):
			c.fault(path+"environment", fmt.Sprintf("%q is not the name of a variable", name), "write letters, digits and _")
		case slices.Contains(ownVariables, name):
			c.fault(path+"environment", name+" is set by Locum", "remove it")
		}
	}
	for _, method := range a.RepeatMethods {
		if method == "" || method != strings.ToUpper(method) || strings.ContainsAny(method, " \t") {
			c.fault(path+"repeat_methods", fmt.Sprintf("%q is not an HTTP method", method), `write it such as ["PUT", "DELETE"]`)
		}
	}
}

func (c *checker) health(a *Application, path string) {
	h := a.Health
	given := 0
	for _, is := range []bool{h.Path != "", h.TCP != "", len(h.Command) > 0} {
		if is {
			given++
		}
	}
	if given > 1 {
		c.fault(strings.TrimSuffix(path, "."), "more than one of path, tcp and command", "keep one")
	}
	if h.Path != "" && !strings.HasPrefix(h.Path, "/") {
		c.fault(path+"path", fmt.Sprintf("%q does not begin with /", h.Path), `write it such as "/healthz"`)
	}
	if h.Path != "" && strings.HasPrefix(a.Upstream, "tcp:") {
		c.fault(path+"path", "upstream is no HTTP", "write tcp = \"host:port\" or command instead")
	}
	if h.TCP != "" {
		if _, port, err := splitAddress(h.TCP); err != nil || port == 0 {
			c.fault(path+"tcp", fmt.Sprintf("%q is not host:port", h.TCP), `write it such as "127.0.0.1:9000"`)
		}
	}
	if h.Interval <= 0 || h.Timeout <= 0 || h.Failures < 1 {
		c.fault(strings.TrimSuffix(path, "."), "interval, timeout and failures must be above 0", `write such as interval = "1s"`)
	}
}

func (c *checker) hook(path, hook string) {
	switch {
	case strings.TrimSpace(hook) == "":
		c.fault(path, "an empty command", "write a command or a URL")
	case strings.HasPrefix(hook, "http://"), strings.HasPrefix(hook, "https://"):
		if u, err := url.Parse(hook); err != nil || u.Host == "" {
			c.fault(path, "a URL that cannot be read", `write it such as "http://127.0.0.1:9000/promote"`)
		}
	}
}

// checkUpstream wants an address that can be connected to.
func checkUpstream(text string) error {
	if path, ok := strings.CutPrefix(text, "unix://"); ok {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("%q: the path of the socket is not absolute", text)
		}
		return nil
	}
	if err := checkURL(text, "http", "h2c", "https", "tcp"); err != nil {
		return err
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return fmt.Errorf("%q is not a URL", text)
	case u.Path != "" && u.Path != "/":
		return fmt.Errorf("%q has a path: requests keep their own", text)
	case u.Port() == "" && (u.Scheme == "tcp" || u.Scheme == "h2c"):
		return fmt.Errorf("%q has no port", text)
	}
	return nil
}

// applicationFiles looks at what the applications need of this host.
func (c *checker) applicationFiles() {
	for i, a := range c.Applications {
		path := fmt.Sprintf("application[%d].", i)
		c.servingFiles(&a, path)
		if a.WorkingDir != "" && !isDir(a.WorkingDir) {
			c.fault(path+"working_dir", fmt.Sprintf("there is no directory %s", a.WorkingDir), "write the path of an existing one")
		}
		if a.RoleFile != "" && !isDir(filepath.Dir(a.RoleFile)) {
			c.fault(path+"role_file", fmt.Sprintf("there is no directory %s", filepath.Dir(a.RoleFile)), "make it, or write another path")
		}
		if a.User != "" {
			c.applicationUser(path, a.User)
		}
		if a.Group != "" {
			if _, err := user.LookupGroup(a.Group); err != nil {
				if _, err := user.LookupGroupId(a.Group); err != nil && !digits(a.Group) {
					c.fault(path+"group", fmt.Sprintf("there is no group %s", a.Group), "write the name or number of one")
				}
			}
		}
	}
}

func (c *checker) applicationUser(path, name string) {
	u, err := user.Lookup(name)
	if err != nil {
		u, err = user.LookupId(name)
	}
	switch {
	case err != nil && !digits(name):
		c.fault(path+"user", fmt.Sprintf("there is no user %s", name), "write the name or number of one")
	case os.Geteuid() != 0 && (err != nil || u.Uid != fmt.Sprint(os.Geteuid())):
		c.fault(path+"user", fmt.Sprintf("only root can start a command as %s", name), "start Locum as root, or remove the line")
	}
}

func digits(text string) bool {
	return text != "" && strings.Trim(text, "0123456789") == ""
}

// freePort asks the system for a port on the loopback address that nobody listens on.
func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}
