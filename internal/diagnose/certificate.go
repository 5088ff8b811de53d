package diagnose

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/locum-ha/locum/internal/config"
)

// soon is how long before its end a certificate is worth a warning.
const soon = 14 * 24 * time.Hour

func (r *run) certificates() {
	for _, l := range r.cfg.Listeners {
		switch {
		case l.TLSDisable:
			r.plain(l)
		case l.TLSCertFile != "" && l.TLSKeyFile != "":
			r.certificate(l)
		}
	}
}

// plain looks at a listener without TLS: what is advertised must fit.
func (r *run) plain(l config.Listener) {
	if r.apiListener(l) && strings.HasPrefix(r.cfg.APIAddr, "https://") {
		r.fault("write api_addr with http://, or give the listener a certificate", "%s speaks plain HTTP, and api_addr is %s: clients are sent to TLS that is not there", l.Address, r.cfg.APIAddr)
		return
	}
	r.ok("%s has no TLS: there is no certificate to look at", l.Address)
}

// apiListener reports whether api_addr names this listener by its port, and not something in front of it.
func (r *run) apiListener(l config.Listener) bool {
	u, err := url.Parse(r.cfg.APIAddr)
	return err == nil && u.Port() != "" && strings.HasSuffix(l.Address, ":"+u.Port())
}

// certificate looks at a listener's own. That it cannot be read, or does not fit its key, the configuration has told.
func (r *run) certificate(l config.Listener) {
	pair, err := tls.LoadX509KeyPair(l.TLSCertFile, l.TLSKeyFile)
	if err != nil {
		if !r.failed() {
			r.fault("write the PEM files of a certificate and of its own key", "%s: %s", l.TLSCertFile, err)
		}
		return
	}
	before := len(r.findings)
	leaf := pair.Leaf
	r.validity(l.TLSCertFile, leaf)
	r.chain(l.TLSCertFile, pair)
	r.nameOf(l, leaf)
	if len(r.findings) == before {
		r.ok("%s is valid until %s for %s, and fits its key", l.TLSCertFile, leaf.NotAfter.Format(time.DateOnly), strings.Join(namesIn(leaf), ", "))
	}
}

func (r *run) validity(file string, leaf *x509.Certificate) {
	switch now := r.Now(); {
	case now.After(leaf.NotAfter):
		r.fault("renew it, then SIGHUP the node: it is read again", "the certificate in %s ran out on %s: clients refuse it", file, leaf.NotAfter.Format(time.DateOnly))
	case now.Before(leaf.NotBefore):
		r.fault("set this host's clock right, or wait", "the certificate in %s is valid only from %s on, and the clock here says %s", file,
			leaf.NotBefore.Format(time.RFC3339), now.Format(time.RFC3339))
	case leaf.NotAfter.Sub(now) < soon:
		r.warn("renew it, then SIGHUP the node: it is read again", "the certificate in %s runs out on %s, in %d days", file,
			leaf.NotAfter.Format(time.DateOnly), int(leaf.NotAfter.Sub(now).Hours()/24))
	}
}

// chain checks whether a client that knows the authorities can follow the certificate up to one: those of the system, and
// those by which this node itself knows the others.
func (r *run) chain(file string, pair tls.Certificate) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	own := false
	for _, j := range r.cfg.Storage.Raft.RetryJoin {
		own = r.addAuthorities(roots, j) || own
	}
	between := x509.NewCertPool()
	for _, der := range pair.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(c)
		}
	}
	leaf := pair.Leaf
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: middle(leaf), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	var usage x509.CertificateInvalidError
	switch {
	case err == nil:
	case errors.As(err, &usage) && usage.Reason == x509.IncompatibleUsage:
		r.fault("let it be issued anew, for servers (serverAuth)", "the certificate in %s is not one for servers", file)
	case own:
		r.warn("put the certificates between it and its authority behind it, in the same file; or check leader_ca_cert_file", "the certificate in %s leads to no authority that this node knows the others by: %s", file, plainTLS(err))
	default:
		r.warn("if its authority is your own, give it to clients (LOCUM_CACERT, leader_ca_cert_file); if not, put the certificates between it and its authority behind it, in the same file",
			"no authority that this system trusts vouches for the certificate in %s (issued by %q)", file, leaf.Issuer.String())
	}
}

// middle is a time at which the certificate is valid: its lifetime is looked at on its own.
func middle(c *x509.Certificate) time.Time { return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 2) }

func (r *run) addAuthorities(pool *x509.CertPool, j config.RetryJoin) bool {
	pem := []byte(j.LeaderCACert)
	if j.LeaderCACertFile != "" {
		pem, _ = os.ReadFile(j.LeaderCACertFile) // the configuration's check has told
	}
	return len(pem) > 0 && pool.AppendCertsFromPEM(pem)
}

// nameOf checks whether clients that are sent to api_addr find a certificate for its host.
func (r *run) nameOf(l config.Listener, leaf *x509.Certificate) {
	u, err := url.Parse(r.cfg.APIAddr)
	if err != nil || u.Hostname() == "" {
		return // the configuration's check has told
	}
	if !r.apiListener(l) {
		return // something in front of it has a certificate of its own
	}
	if u.Scheme == "http" {
		r.fault("write api_addr with https://", "%s speaks TLS, and api_addr is %s: clients are sent to plain HTTP that is not there", l.Address, r.cfg.APIAddr)
		return
	}
	if leaf.VerifyHostname(u.Hostname()) != nil {
		r.fault("let a certificate be issued that names "+u.Hostname()+", or write one of its names into api_addr",
			"the certificate in %s is for %s, and not for %s, the host of api_addr: clients refuse it", l.TLSCertFile, strings.Join(namesIn(leaf), ", "), u.Hostname())
	}
}

// namesIn lists what a certificate is for.
func namesIn(c *x509.Certificate) []string {
	names := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return []string{"no host (only the subject " + strconv.Quote(c.Subject.String()) + ", which is not looked at any more)"}
	}
	return names
}

// plainTLS says in plain words why a certificate is refused.
func plainTLS(err error) string {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return "its authority is not known here"
	case errors.As(err, &name) && name.Certificate != nil:
		return fmt.Sprintf("it is for %s, and not for %s", strings.Join(namesIn(name.Certificate), ", "), name.Host)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "it ran out, or is not valid yet by the clock here"
	}
	return err.Error()
}
