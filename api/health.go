package api

import (
	"fmt"
	"net/http"
	"strconv"
)

// healthBody is the answer of sys/health. What Locum does not have (replication, an enterprise edition) stands there
// as Vault writes it where it is not in use.
type healthBody struct {
	Initialized        bool   `json:"initialized"`
	Sealed             bool   `json:"sealed"`
	Standby            bool   `json:"standby"`
	PerformanceStandby bool   `json:"performance_standby"`
	ReplicationPerf    string `json:"replication_performance_mode"`
	ReplicationDR      string `json:"replication_dr_mode"`
	ServerTimeUTC      int64  `json:"server_time_utc"`
	Version            string `json:"version"`
	Enterprise         bool   `json:"enterprise"`
	ClusterName        string `json:"cluster_name,omitempty"`
	ClusterID          string `json:"cluster_id,omitempty"`
	EchoMS             int64  `json:"echo_duration_ms"`
	SkewMS             int64  `json:"clock_skew_ms"`
	Removed            *bool  `json:"removed_from_cluster,omitempty"`
	HAHealthy          *bool  `json:"ha_connection_healthy,omitempty"`
	LastHeartbeatMS    *int64 `json:"last_request_forwarding_heartbeat_ms,omitempty"`
}

// The status codes of sys/health, by the name of the parameter that replaces each.
var healthCodes = map[string]int{
	"activecode":      http.StatusOK,
	"standbycode":     http.StatusTooManyRequests,
	"haunhealthycode": 474,
	"removedcode":     530,
	"uninitcode":      http.StatusNotImplemented,
	"sealedcode":      http.StatusServiceUnavailable,
	// States that a Locum node never is in; a bad value is refused all the same.
	"drsecondarycode":        472,
	"performancestandbycode": 473,
}

func (l *local) health(w http.ResponseWriter, r *http.Request) {
	st := l.node.Status()
	code, err := healthCode(st, r)
	if err != nil {
		l.fail(w, r, err)
		return
	}
	body := healthBody{
		Initialized: st.Initialized, Sealed: st.Sealed, Standby: !st.Active,
		ReplicationPerf: "disabled", ReplicationDR: "disabled",
		ServerTimeUTC: l.cfg.Now().Unix(), Version: st.Version, ClusterName: st.ClusterName, ClusterID: st.ClusterID,
		EchoMS: st.EchoTime.Milliseconds(), SkewMS: st.ClockSkew.Milliseconds(),
	}
	if st.Initialized && !st.Sealed && st.HAEnabled {
		body.Removed = &st.Removed
		if !st.Active {
			body.HAHealthy = &st.Connected
			if ms := st.LastEcho.Milliseconds(); st.LastEcho >= 0 {
				body.LastHeartbeatMS = &ms
			}
		}
	}
	l.reply(w, code, body)
}

// healthCode chooses the status code. A standby that cannot reach an active node is no better for standbyok: what is
// asked there is whether a standby will do, and this one will not.
func healthCode(st Status, r *http.Request) (int, error) {
	standbyOK := false
	codes := healthCodes
	if query := r.URL.Query(); len(query) > 0 {
		codes = make(map[string]int, len(healthCodes))
		for name, code := range healthCodes {
			codes[name] = code
			if !query.Has(name) {
				continue
			}
			n, err := strconv.Atoi(query.Get(name))
			if err != nil || n < 200 || n > 599 {
				return 0, Errorf(http.StatusBadRequest, "the parameter %s must be an HTTP status code from 200 to 599, not %s", name, shown(query.Get(name)))
			}
			codes[name] = n
		}
		for name, set := range map[string]*bool{"standbyok": &standbyOK, "perfstandbyok": new(bool)} {
			if !query.Has(name) {
				continue
			}
			on, err := strconv.ParseBool(query.Get(name))
			if err != nil && query.Get(name) != "" { // the bare name is enough
				return 0, Errorf(http.StatusBadRequest, "the parameter %s must be true or false, not %s", name, shown(query.Get(name)))
			}
			*set = on || query.Get(name) == ""
		}
	}
	switch {
	case !st.Initialized:
		return codes["uninitcode"], nil
	case st.Removed:
		return codes["removedcode"], nil
	case st.Sealed:
		return codes["sealedcode"], nil
	case st.Active:
		return codes["activecode"], nil
	case st.HAEnabled && !st.Connected:
		return codes["haunhealthycode"], nil
	case standbyOK:
		return codes["activecode"], nil
	default:
		return codes["standbycode"], nil
	}
}

// state answers a probe: 200 if ok, else 503 with the reason.
func (l *local) state(w http.ResponseWriter, r *http.Request, name string, ok bool, reason string) {
	if r.Method == http.MethodOptions {
		w.Header().Set("Allow", "GET, HEAD, OPTIONS")
	}
	if !ok {
		l.fail(w, r, &Error{Status: http.StatusServiceUnavailable, Message: reason})
		return
	}
	l.reply(w, http.StatusOK, map[string]bool{name: true})
}

func (l *local) live(w http.ResponseWriter, r *http.Request) {
	l.state(w, r, "live", true, "")
}

func (l *local) ready(w http.ResponseWriter, r *http.Request) {
	st := l.node.Status()
	reason := st.NotReady
	if st.Sealed || !st.Initialized {
		reason = sealedAnswer(st.Initialized).Message
	}
	l.state(w, r, "ready", reason == "", reason)
}

func (l *local) active(w http.ResponseWriter, r *http.Request) {
	st := l.node.Status()
	l.state(w, r, "active", st.Active, notTheOne(st, "active"))
}

func (l *local) standby(w http.ResponseWriter, r *http.Request) {
	st := l.node.Status()
	l.state(w, r, "standby", !st.Active && !st.Sealed && st.Initialized, notTheOne(st, "standby"))
}

// notTheOne says why a node is not what the probe asks for.
func notTheOne(st Status, asked string) string {
	switch {
	case st.Sealed || !st.Initialized:
		return sealedAnswer(st.Initialized).Message
	case st.Active:
		return fmt.Sprintf("node is not %s: it is active", asked)
	case st.Leader.APIAddr != "":
		return fmt.Sprintf("node is not %s: it is standby, and %s is active", asked, st.Leader.APIAddr)
	default:
		return fmt.Sprintf("node is not %s: it is standby, and no node is known to be active", asked)
	}
}
