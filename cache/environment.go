package cache

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Environment is what the environment says about the cache.
type Environment struct {
	// HA is HA_MODE: this node is one of several. Without it the cache is this node's alone.
	HA bool
	// Config is complete but for logger, observer and the caches' bounds.
	Config Config
	// Warnings are what may be meant, but seldom is: one sentence each.
	Warnings []string
}

// FromEnvironment reads the variables by which a cache is set up without any file:
//
//	HA_MODE                          true: this node is one of HA_HOSTS. Else it is alone, and nothing below is read
//	HA_HOSTS                         all nodes, "http://app-0.app:8402, …", separated by commas or newlines
//	HOSTNAME_OVERWRITE               this node's host name, or its entry's host:port, instead of the machine's
//	CACHE_AUTH_TOKEN                 the secret that all nodes share; required
//	CACHE_TLS                        false: no TLS between the nodes. Default: true
//	CACHE_TLS_SERVER_CERT, _KEY      own certificate and key, PEM files; without any file the nodes make certificates from the token
//	CACHE_TLS_CLIENT_CERT, _KEY      what this node shows to the others
//	CACHE_TLS_CA_SERVER, _CA_CLIENT  authorities of the others' server and client certificates
//	CACHE_TLS_CLIENT_VALIDATE_DOMAIN the name that the others' server certificates must have. Default: the host that is dialled
//	CACHE_TLS_SNI_OVERWRITE          the name that is asked for in the handshake
//	CACHE_ELECTION_TIMEOUT           a duration ("500ms"), or a number of seconds
//	CACHE_KEEPALIVE_INTERVAL, CACHE_KEEPALIVE_TIMEOUT              likewise
//	CACHE_RECONNECT_TIMEOUT_LOWER, CACHE_RECONNECT_TIMEOUT_UPPER   a duration, or a number of milliseconds
//
// A nil lookup is os.LookupEnv, a nil hostname os.Hostname. The error joins everything that is wrong, each with what to do.
func FromEnvironment(lookup func(string) (string, bool), hostname func() (string, error)) (*Environment, error) {
	if lookup == nil {
		lookup = os.LookupEnv
	}
	if hostname == nil {
		hostname = os.Hostname
	}
	e := &environment{lookup: lookup}
	e.HA = e.boolean("HA_MODE", false)
	if e.HA {
		e.hosts(hostname)
		e.security()
		e.times()
	}
	if err := errors.Join(e.errs...); err != nil {
		return nil, err
	}
	return &e.Environment, nil
}

// environment reads one variable after the other, and gathers what is wrong.
type environment struct {
	Environment
	lookup func(string) (string, bool)
	errs   []error
}

// get reads a variable. One that is set to nothing is not set.
func (e *environment) get(name string) string {
	value, _ := e.lookup(name)
	return strings.TrimSpace(value)
}

func (e *environment) fault(format string, args ...any) {
	e.errs = append(e.errs, fmt.Errorf(format, args...))
}

func (e *environment) warn(format string, args ...any) {
	e.Warnings = append(e.Warnings, fmt.Sprintf(format, args...))
}

func (e *environment) boolean(name string, otherwise bool) bool {
	switch value := e.get(name); strings.ToLower(value) {
	case "":
		return otherwise
	case "true":
		return true
	case "false":
		return false
	default:
		e.fault("%s=%q: write true or false", name, value)
		return otherwise
	}
}

func (e *environment) hosts(hostname func() (string, error)) {
	list := strings.FieldsFunc(e.get("HA_HOSTS"), func(r rune) bool { return r == ',' || r == '\n' || r == '\r' || r == ' ' || r == '\t' })
	if len(list) == 0 {
		e.fault("HA_HOSTS is not set, and HA_MODE is true: list all nodes, such as \"http://app-0.app:8402, http://app-1.app:8402, http://app-2.app:8402\"")
		return
	}
	hosts, err := ParseHosts(list)
	if err != nil {
		e.fault("HA_HOSTS: %w", err)
		return
	}
	name := e.get("HOSTNAME_OVERWRITE")
	if name == "" {
		if name, err = hostname(); err != nil {
			e.fault("the host name cannot be read: %w: set HOSTNAME_OVERWRITE", err)
			return
		}
	} else if own, err := ParseHosts([]string{name}); err == nil {
		name = own[0] // the whole entry, as it stands in the list
	}
	self, err := FindSelf(hosts, name)
	if err != nil {
		e.fault("HA_HOSTS: %w", err)
		return
	}
	e.Config.Hosts, e.Config.Self = hosts, self
}

// shortToken is the length below which a token can be guessed by trying.
const shortToken = 16

func (e *environment) security() {
	token := e.get("CACHE_AUTH_TOKEN")
	switch {
	case token == "":
		e.fault("CACHE_AUTH_TOKEN is not set: give all nodes the same secret, such as the output of \"openssl rand -hex 32\"")
	case len(token) < shortToken:
		e.warn("CACHE_AUTH_TOKEN has %d characters: one of %d or more cannot be found by trying", len(token), shortToken)
	}
	e.Config.AuthToken = Secret(token)
	if !e.boolean("CACHE_TLS", true) {
		e.Config.TLS.Disabled = true
		e.warn("CACHE_TLS is false: what the nodes tell each other can be read and changed on the way; leave that to a service mesh, or to nobody")
		return
	}
	files := map[string]string{}
	for _, name := range []string{"SERVER_CERT", "SERVER_KEY", "CLIENT_CERT", "CLIENT_KEY", "CA_SERVER", "CA_CLIENT"} {
		if file := e.get("CACHE_TLS_" + name); file != "" {
			files[name] = file
		}
	}
	if len(files) > 0 {
		e.certificates(files)
	}
}

// certificates makes both sides' configurations of one's own files.
func (e *environment) certificates(files map[string]string) {
	server := &tls.Config{MinVersion: tls.VersionTLS13} // the token's proof is bound to the connection, which needs it
	client := &tls.Config{MinVersion: tls.VersionTLS13}
	if pair, ok := e.pair(files, "SERVER"); ok {
		server.GetCertificate = pair.server
	} else if files["SERVER_CERT"] == "" && files["SERVER_KEY"] == "" {
		e.fault("CACHE_TLS_SERVER_CERT is not set, and other certificate files are: set it and CACHE_TLS_SERVER_KEY, or none of them")
	}
	if pair, ok := e.pair(files, "CLIENT"); ok {
		client.GetClientCertificate = pair.client
	}
	if file := files["CA_SERVER"]; file != "" {
		client.RootCAs = e.authorities("CACHE_TLS_CA_SERVER", file)
	}
	if file := files["CA_CLIENT"]; file != "" {
		server.ClientCAs, server.ClientAuth = e.authorities("CACHE_TLS_CA_CLIENT", file), tls.RequireAndVerifyClientCert
		if files["CLIENT_CERT"] == "" {
			e.fault("CACHE_TLS_CA_CLIENT asks the other nodes for client certificates, and this node has none to show: set CACHE_TLS_CLIENT_CERT and CACHE_TLS_CLIENT_KEY")
		}
	} else {
		e.warn("CACHE_TLS_CA_CLIENT is not set: the nodes prove themselves by the token alone")
	}
	e.names(client)
	e.Config.TLS.Server, e.Config.TLS.Client = server, client
}

func (e *environment) pair(files map[string]string, side string) (*keyPair, bool) {
	cert, key := files[side+"_CERT"], files[side+"_KEY"]
	switch {
	case cert == "" && key == "":
		return nil, false
	case cert == "" || key == "":
		e.fault("CACHE_TLS_%s_CERT and CACHE_TLS_%s_KEY go together: set both or none", side, side)
		return nil, false
	}
	pair, err := loadKeyPair(cert, key)
	if err != nil {
		e.fault("CACHE_TLS_%s_CERT: %w: give the PEM files of a certificate and of its own key", side, err)
		return nil, false
	}
	return pair, true
}

func (e *environment) authorities(name, file string) *x509.CertPool {
	data, err := os.ReadFile(file)
	pool := x509.NewCertPool()
	switch {
	case err != nil:
		e.fault("%s: %w", name, err)
	case !pool.AppendCertsFromPEM(data):
		e.fault("%s: %s holds no certificate: give a PEM file of authorities", name, file)
	}
	return pool
}

// names settles which name is asked for in the handshake and which one the certificate must have. Where none is given, the cache puts
// in the host that it dials.
func (e *environment) names(client *tls.Config) {
	valid, sni := e.get("CACHE_TLS_CLIENT_VALIDATE_DOMAIN"), e.get("CACHE_TLS_SNI_OVERWRITE")
	client.ServerName = valid
	if sni == "" || sni == valid {
		return
	}
	client.ServerName = sni
	if valid == "" {
		return
	}
	client.InsecureSkipVerify = true // crypto/tls would verify the name that was asked for; VerifyConnection does all of it
	client.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errors.New("the other node showed no certificate")
		}
		options := x509.VerifyOptions{DNSName: valid, Roots: client.RootCAs, Intermediates: x509.NewCertPool()}
		for _, cert := range state.PeerCertificates[1:] {
			options.Intermediates.AddCert(cert)
		}
		_, err := state.PeerCertificates[0].Verify(options)
		return err
	}
}

func (e *environment) times() {
	c := &e.Config
	e.duration("CACHE_ELECTION_TIMEOUT", time.Second, &c.ElectionTimeout)
	e.duration("CACHE_KEEPALIVE_INTERVAL", time.Second, &c.KeepaliveInterval)
	e.duration("CACHE_KEEPALIVE_TIMEOUT", time.Second, &c.KeepaliveTimeout)
	e.duration("CACHE_RECONNECT_TIMEOUT_LOWER", time.Millisecond, &c.ReconnectLower)
	e.duration("CACHE_RECONNECT_TIMEOUT_UPPER", time.Millisecond, &c.ReconnectUpper)
	if c.ReconnectLower > 0 && c.ReconnectUpper > 0 && c.ReconnectLower > c.ReconnectUpper {
		e.fault("CACHE_RECONNECT_TIMEOUT_LOWER is %s, more than CACHE_RECONNECT_TIMEOUT_UPPER, %s: write a smaller one", c.ReconnectLower, c.ReconnectUpper)
	}
}

// Bounds of the times that can be set.
const (
	shortestTime = 10 * time.Millisecond
	longestTime  = time.Hour
)

// duration reads a number of units, or a number with a unit of its own. One that is not set stays at its default.
func (e *environment) duration(name string, unit time.Duration, into *time.Duration) {
	text := e.get(name)
	if text == "" {
		return
	}
	d, err := time.ParseDuration(text)
	if n, notNumber := strconv.ParseUint(text, 10, 31); notNumber == nil {
		d, err = time.Duration(n)*unit, nil
	}
	switch {
	case err != nil:
		e.fault("%s=%q is not a time: write it such as %q, or as a number, which counts in %s", name, text, "500ms", unit)
	case d < shortestTime || d > longestTime:
		e.fault("%s=%q is out of range: write a time from %s to %s", name, text, shortestTime, longestTime)
	default:
		*into = d
	}
}
