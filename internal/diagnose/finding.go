package diagnose

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical"
)

// Level is how bad a finding is.
type Level string

// The levels.
const (
	OK      Level = "ok"
	Skipped Level = "skipped" // it could not be looked at; what to do says how it can be
	Warning Level = "warning" // it works, or may; somebody should look
	Error   Level = "error"   // it keeps the node from doing its work
)

// The checks, in the order in which they are made.
const (
	CheckConfig = "configuration"
	CheckCert   = "certificate"
	CheckSeal   = "seal"
	CheckData   = "data directory"
	CheckStore  = "data store" // where the nodes share one
	CheckDisk   = "disk"
	CheckNames  = "names"
	CheckPorts  = "ports"
	CheckNode   = "this node"
	CheckOthers = "other nodes"
	CheckMember = "membership"
	CheckClocks = "clocks"
)

// Checks are all of them, in order.
var Checks = []string{CheckConfig, CheckCert, CheckSeal, CheckData, CheckStore, CheckDisk, CheckNames, CheckPorts, CheckNode, CheckOthers, CheckMember, CheckClocks}

// Finding is one thing that was found.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	What  string `json:"what"`
	Do    string `json:"do,omitempty"` // always there unless Level is OK
}

// Report is everything that was found.
type Report struct {
	NodeName string    `json:"node_name,omitempty"`
	Result   Level     `json:"result"` // the worst level: ok, warning or error
	Findings []Finding `json:"findings"`
}

// Options say what to look at and with what.
type Options struct {
	// Source is the configuration, as the node would read it.
	Source config.Source

	// OpenSeal reads the key of a static seal and returns what tells whether it opens a wrapped root key. Default: the
	// key is not looked at.
	OpenSeal func(config.Seal) (opens func(ctx context.Context, rootKey []byte) error, err error)

	// OpenStores opens the data stores as a node does, and reports where they, or the times that are set, do not go together.
	// Default: stores that the nodes share are not looked at.
	OpenStores func(ctx context.Context, cfg *config.Config) (physical.Stores, error)

	// Token is sent to nodes of this cluster to learn its members; may be empty.
	Token string

	// ClientCerts are shown to this node's own listener, where that asks for one.
	ClientCerts []tls.Certificate

	// RaftALPN is the name under which the embedded store's messages are negotiated on the cluster port.
	RaftALPN string

	// Lookup resolves a name. Default: net.DefaultResolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

	// Timeout is for each step over the network. Default: 3s.
	Timeout time.Duration

	// Now is the wall clock. Default: time.Now.
	Now func() time.Time

	// Progress is told what is being looked at. May be nil.
	Progress func(check string)
}

func (o Options) withDefaults() Options {
	if o.Lookup == nil {
		o.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if o.Timeout <= 0 {
		o.Timeout = 3 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if o.RaftALPN == "" {
		o.RaftALPN = "locum-raft/1"
	}
	return o
}

// run is one diagnosis.
type run struct {
	Options
	ctx      context.Context
	cfg      *config.Config
	check    string // being made
	findings []Finding

	dir    dataDir
	self   *answer // of this node's own listener; nil if nothing answered
	others []*other
}

func (r *run) add(level Level, do, format string, args ...any) {
	r.findings = append(r.findings, Finding{Check: r.check, Level: level, What: fmt.Sprintf(format, args...), Do: do})
}

func (r *run) ok(format string, args ...any)        { r.add(OK, "", format, args...) }
func (r *run) skip(do, format string, args ...any)  { r.add(Skipped, do, format, args...) }
func (r *run) warn(do, format string, args ...any)  { r.add(Warning, do, format, args...) }
func (r *run) fault(do, format string, args ...any) { r.add(Error, do, format, args...) }

// Run looks at everything. Cancelling ctx cuts it short.
func Run(ctx context.Context, o Options) Report {
	r := &run{Options: o.withDefaults(), ctx: ctx}
	steps := []struct {
		check string
		make  func()
	}{
		{CheckConfig, r.configuration}, {CheckCert, r.certificates}, {CheckSeal, r.seal}, {CheckData, r.dataDirectory},
		{CheckStore, r.dataStore},
		{CheckDisk, r.disk}, {CheckNames, r.names}, {CheckPorts, r.ports}, {CheckNode, r.node}, {CheckOthers, r.otherNodes},
		{CheckMember, r.membership}, {CheckClocks, r.clocks},
	}
	for _, s := range steps {
		if ctx.Err() != nil {
			r.fault("run it again, and let it end", "not looked at: %s", context.Cause(ctx))
			break
		}
		r.check = s.check
		r.Progress(s.check)
		s.make()
		if r.cfg == nil {
			break // nothing else can be looked at
		}
	}
	return r.report()
}

func (r *run) report() Report {
	report := Report{Result: OK, Findings: r.findings}
	if r.cfg != nil {
		report.NodeName = r.cfg.NodeName
	}
	for _, f := range r.findings {
		if f.Level == Error || f.Level == Warning && report.Result == OK {
			report.Result = f.Level
		}
	}
	return report
}

// within gives a step over the network its time.
func (r *run) within() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(r.ctx, r.Timeout, fmt.Errorf("no answer within %s", r.Timeout))
}
