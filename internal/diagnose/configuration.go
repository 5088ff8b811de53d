package diagnose

import (
	"errors"
	"regexp"
	"strings"

	"github.com/locum-ha/locum/internal/config"
)

// elsewhere finds the check that a fault of the configuration belongs to, by the setting that it begins with.
var elsewhere = []struct {
	setting *regexp.Regexp
	check   string
}{
	{regexp.MustCompile(`^(listener\[\d+\]\.tls_|storage\.retry_join\[\d+\]\.leader_(ca|client))`), CheckCert},
	{regexp.MustCompile(`^seal`), CheckSeal},
}

func checkOf(what string) string {
	for _, e := range elsewhere {
		if e.setting.MatchString(what) {
			return e.check
		}
	}
	return CheckConfig
}

// configuration reads it. What is wrong with it is told; the rest is looked at all the same, as far as it can be.
func (r *run) configuration() {
	c, err := config.Read(r.Source.Paths...)
	if err != nil {
		r.faults(err)
		return
	}
	r.cfg = c
	if err := c.Complete(r.Source); err != nil {
		r.faults(err)
	} else {
		r.ok("it is valid: node %s, storage %s, seal %s", c.NodeName, c.Storage.Type, c.Seal.Type)
	}
	for _, warning := range c.Warnings {
		if strings.Contains(warning, "ran out on") {
			continue // the certificates are looked at more closely
		}
		what, do := warning, "change it, or leave it if it is meant so"
		if cut := strings.LastIndex(warning, "; "); cut > 0 {
			what, do = warning[:cut], warning[cut+2:]
		}
		r.at(checkOf(warning), Finding{Level: Warning, What: what, Do: do})
	}
}

func (r *run) faults(err error) {
	var faults config.Faults
	if !errors.As(err, &faults) {
		r.fault("write the path of a configuration that can be read", "%s", err)
		return
	}
	for _, f := range faults {
		do := f.Fix
		if do == "" {
			do = "see \"locum help config\""
		}
		r.at(checkOf(f.What), Finding{Level: Error, What: (config.Fault{Where: f.Where, What: f.What}).String(), Do: do})
	}
}

// at adds a finding to another check than the one being made.
func (r *run) at(check string, f Finding) {
	f.Check = check
	r.findings = append(r.findings, f)
}

// failed reports whether an error has been found already in this check: there is no need to say it twice.
func (r *run) failed() bool {
	for _, f := range r.findings {
		if f.Check == r.check && f.Level == Error {
			return true
		}
	}
	return false
}

// seal reads the key, and leaves to membership whether it is the cluster's.
func (r *run) seal() {
	switch {
	case r.failed():
	case r.cfg.Seal.Type != "static":
		r.ok("the root key is in shares: after each start people unseal the node with them (locum operator unseal)")
	case r.OpenSeal == nil:
		r.skip("look at the file yourself", "the key was not looked at")
	default:
		if _, err := r.OpenSeal(r.cfg.Seal); err != nil {
			r.fault("put the cluster's key there, the same as on the other nodes: 32 bytes, raw, as hex or as base64; and let Locum's user read it", "%s", err)
			return
		}
		from := r.cfg.Seal.Static.KeyFile
		if from == "" {
			from = "the environment's " + r.cfg.Seal.Static.KeyEnv
		}
		r.ok("the key in %s can be read and has the right length", from)
	}
}
