package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/auth"
	"github.com/locum-ha/locum/lock"
)

var update = flag.Bool("update", false, "write the golden files anew")

const rootToken = "hvs.root"

// noon is when everything in these tests happens.
var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// fakeNode is a node in whatever state the test gives it.
type fakeNode struct {
	resume   bool // nobody is active: this node takes it on itself
	status   Status
	initReq  *InitRequest
	initErr  error
	shares   [][]byte
	resets   int
	unsealEr error
	join     *JoinRequest
	authErr  error
}

func (n *fakeNode) Status() Status { return n.status }
func (n *fakeNode) Sealed() bool   { return n.status.Sealed || !n.status.Initialized }

func (n *fakeNode) Authorize(_ context.Context, token string, _ Access) error {
	if n.authErr != nil {
		return n.authErr
	}
	return rootOnly(token)
}

func rootOnly(token string) error {
	if token != rootToken {
		return ErrDenied
	}
	return nil
}

func (n *fakeNode) Init(_ context.Context, req InitRequest) (*InitResponse, error) {
	n.initReq = &req
	if n.initErr != nil {
		return nil, n.initErr
	}
	return &InitResponse{Keys: [][]byte{{0xab, 0xcd}, {0x01, 0x02}}, RootToken: rootToken}, nil
}

func (n *fakeNode) Unseal(_ context.Context, share []byte) error {
	if n.unsealEr != nil {
		return n.unsealEr
	}
	n.shares = append(n.shares, share)
	n.status.Seal.Progress++
	return nil
}

func (n *fakeNode) ResetUnseal(context.Context) error {
	n.resets++
	n.status.Seal.Progress = 0
	return nil
}

func (n *fakeNode) Resume(_ context.Context, token string, _ Access) (bool, error) {
	if n.resume {
		return true, rootOnly(token)
	}
	return false, nil
}

func (n *fakeNode) Join(_ context.Context, req JoinRequest) error {
	n.join = &req
	return nil
}

// states of a node.
func activeStatus() Status {
	return Status{
		Name: "node-a", Version: "1.2.3", BuildDate: "2026-11-20T10:00:00Z", ClusterName: "orders", ClusterID: "6f4c7c0e-0000-4000-8000-000000000001",
		Initialized: true, Seal: SealStatus{Type: "shamir", Shares: 5, Threshold: 3}, StorageType: "raft",
		HAEnabled: true, Active: true, ActiveSince: noon.Add(-time.Hour), LastEcho: -1,
		Leader: Leader{NodeID: "id-a", Name: "node-a", APIAddr: "https://a.example.com:8400", ClusterAddr: "https://a.example.com:8401", Listener: "10.0.0.1:8400", Term: 7},
		Raft:   &RaftIndex{Committed: 42, Applied: 41},
	}
}

func standbyStatus() Status {
	st := activeStatus()
	st.Name, st.Active, st.Connected = "node-b", false, true
	st.LastEcho, st.EchoTime, st.ClockSkew = 900*time.Millisecond, 3*time.Millisecond, -20*time.Millisecond
	return st
}

func leaderlessStatus() Status {
	st := standbyStatus()
	st.Connected, st.Leader, st.LastEcho, st.NotReady = false, Leader{}, 12*time.Second, "no connection to an active node"
	return st
}

func sealedStatus() Status {
	st := standbyStatus()
	st.Sealed, st.Connected, st.Leader, st.Raft, st.ClusterID = true, false, Leader{}, nil, ""
	st.Seal.Progress, st.Seal.Nonce = 1, "a2f1"
	return st
}

func emptyStatus() Status {
	st := sealedStatus()
	st.Initialized = false
	st.Seal = SealStatus{Type: "shamir"}
	return st
}

// fakeService does what it is told, and notes it. Over connections, nothing orders the handler of one that was broken off
// without an answer before that of the next.
type fakeService struct {
	mu     sync.Mutex // over what the methods note
	err    error
	to     string
	calls  []string
	access []Access
}

func (s *fakeService) called(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, name)
	return s.err
}

func (s *fakeService) Authorize(_ context.Context, token string, need Access) (*auth.Token, error) {
	s.mu.Lock()
	s.access = append(s.access, need)
	s.mu.Unlock()
	return fakeToken(), rootOnly(token)
}
func (s *fakeService) Seal(context.Context) error { return s.called("seal") }
func (s *fakeService) StepDown(_ context.Context, to string) error {
	s.mu.Lock()
	s.to = to
	s.mu.Unlock()
	return s.called("step-down")
}
func (s *fakeService) Members(context.Context) ([]Member, error) {
	echo := noon.Add(-time.Second)
	return []Member{
		{Hostname: "host-a", APIAddress: "https://a.example.com:8400", ClusterAddr: "https://a.example.com:8401", ActiveNode: true, Version: "1.2.3", Priority: 100, Term: 7, NodeID: "id-a"},
		{Hostname: "host-b", APIAddress: "https://b.example.com:8400", ClusterAddr: "https://b.example.com:8401", LastEcho: &echo, Version: "1.2.3", EchoMS: 3, SkewMS: -20, Priority: 50, Term: 7, NodeID: "id-b", Reason: "standby: node-a holds the lock"},
	}, s.called("members")
}
func (s *fakeService) History(context.Context) ([]Leadership, error) {
	to := noon.Add(-time.Hour)
	return []Leadership{
		{Term: 7, NodeID: "id-a", Node: "node-a", From: to},
		{Term: 6, NodeID: "id-b", Node: "node-b", From: noon.Add(-2 * time.Hour), To: &to, Reason: "step-down"},
	}, s.called("history")
}
func (s *fakeService) KeyStatus(context.Context) (KeyStatus, error) {
	return KeyStatus{Term: 2, InstallTime: noon, Encryptions: 1234}, s.called("key-status")
}
func (s *fakeService) Ordered(context.Context) (Ordered, error) {
	return Ordered{Paused: true, Maintenance: []string{"node-b"}}, s.called("ordered")
}
func (s *fakeService) Pause(_ context.Context, on bool) (Ordered, error) {
	return Ordered{Paused: on}, s.called(fmt.Sprintf("pause %t", on))
}
func (s *fakeService) Maintenance(_ context.Context, node string, on, force bool) (Ordered, error) {
	return Ordered{Maintenance: []string{node}, HandsOver: true}, s.called(fmt.Sprintf("maintenance %s %t %t", node, on, force))
}
func (s *fakeService) Locks() Locks { return fakeLocks{s} }

// fakeLocks: a lock "held" is, all others can be had.
type fakeLocks struct{ s *fakeService }

const lockSecret = "0123456789abcdef"

func (l fakeLocks) Acquire(_ context.Context, r lock.Request) (lock.Grant, error) {
	if r.Name == "held" {
		return lock.Grant{}, &lock.HeldError{State: lock.State{Name: "held", Held: true, Holder: "host-b", Number: 3, TTL: 10 * time.Second, Left: 7 * time.Second}}
	}
	return lock.Grant{Name: r.Name, Holder: r.Holder, Number: 4, TTL: r.TTL}, l.s.called(fmt.Sprintf("acquire %s wait %s", r.Name, r.Wait))
}
func (l fakeLocks) Renew(_ context.Context, name, secret string) (lock.Grant, error) {
	if secret != lockSecret {
		return lock.Grant{}, lock.ErrLost
	}
	return lock.Grant{Name: name, Holder: "host-a", Number: 4, TTL: time.Second}, l.s.called("renew " + name)
}
func (l fakeLocks) Release(_ context.Context, name, secret string) error {
	return l.s.called(fmt.Sprintf("release %s %t", name, secret == lockSecret))
}
func (l fakeLocks) Break(_ context.Context, name string) error { return l.s.called("break " + name) }
func (l fakeLocks) Get(_ context.Context, name string) (lock.State, error) {
	if name == "nobody" {
		return lock.State{Name: name}, l.s.called("get")
	}
	return lock.State{Name: name, Held: true, Holder: "host-b", Number: 3, TTL: 10 * time.Second, Left: 7 * time.Second, Since: noon}, l.s.called("get")
}
func (l fakeLocks) List(_ context.Context, after string, limit int) ([]string, error) {
	return []string{"a", "b/c"}, l.s.called(fmt.Sprintf("list %q %d", after, limit))
}

func (s *fakeService) Rotate(context.Context) error { return s.called("rotate") }

func (s *fakeService) RootGeneration(context.Context) (RootGeneration, error) {
	return RootGeneration{Nonce: "n-1", Started: true, Progress: 1, Required: 3, OTPLength: 32}, s.called("root-generation")
}
func (s *fakeService) BeginRootGeneration(_ context.Context, otp string) (RootGeneration, error) {
	return RootGeneration{Nonce: "n-1", Started: true, Required: 3, OTP: "otp" + otp, OTPLength: 32}, s.called("begin " + otp)
}
func (s *fakeService) CancelRootGeneration(context.Context) error { return s.called("cancel") }
func (s *fakeService) RootShare(_ context.Context, nonce string, share []byte) (RootGeneration, error) {
	return RootGeneration{Nonce: nonce, Started: true, Progress: 3, Required: 3, Complete: true, EncodedToken: "AAEC", OTPLength: 32}, s.called(fmt.Sprintf("share %x", share))
}

func (s *fakeService) RekeyStatus(context.Context) (RekeyStatus, error) {
	return RekeyStatus{Nonce: "n-1", Started: true, Threshold: 2, Shares: 4, Progress: 1, Required: 3, VerificationRequired: true}, s.called("rekey-status")
}
func (s *fakeService) BeginRekey(_ context.Context, shares, threshold int) (RekeyStatus, error) {
	return RekeyStatus{Nonce: "n-1", Started: true, Threshold: threshold, Shares: shares, Required: 3, VerificationRequired: true}, s.called("rekey")
}
func (s *fakeService) CancelRekey(context.Context) error { return s.called("cancel-rekey") }
func (s *fakeService) RekeyShare(_ context.Context, nonce string, share []byte) (RekeyStatus, [][]byte, error) {
	if nonce == "more" {
		return RekeyStatus{Nonce: nonce, Started: true, Threshold: 2, Shares: 4, Progress: 2, Required: 3, VerificationRequired: true}, nil, s.err
	}
	return RekeyStatus{Nonce: nonce, VerificationNonce: "v-1"}, [][]byte{{1, 2}, {3, 4}}, s.called(fmt.Sprintf("rekey share %x", share))
}
func (s *fakeService) RekeyVerification(context.Context) (RekeyVerification, error) {
	return RekeyVerification{Nonce: "v-1", Started: true, Threshold: 2, Shares: 4, Progress: 1}, s.called("verification")
}
func (s *fakeService) VerifyRekey(_ context.Context, nonce string, _ []byte) (RekeyVerification, bool, error) {
	return RekeyVerification{Nonce: nonce, Started: true, Threshold: 2, Shares: 4, Progress: 1}, nonce != "more", s.called("verify")
}
func (s *fakeService) RestartRekeyVerification(context.Context) (RekeyVerification, error) {
	return RekeyVerification{Nonce: "v-2", Started: true, Threshold: 2, Shares: 4}, s.called("restart")
}

// fakeRaft is a raft cluster of two.
type fakeRaft struct {
	mu       sync.Mutex // over what the methods note
	err      error
	midway   error
	removed  string
	restored string
	forced   bool
	said     string
}

func (f *fakeRaft) note(where *string, what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*where = what
}

func (f *fakeRaft) Configuration(context.Context) (RaftConfiguration, error) {
	return RaftConfiguration{Index: 9, Servers: []RaftServer{
		{NodeID: "id-a", Name: "node-a", Address: "10.0.0.1:8401", Leader: true, Voter: true, ProtocolVersion: "3"},
		{NodeID: "id-b", Name: "node-b", Address: "10.0.0.2:8401", ProtocolVersion: "3"},
	}}, f.err
}
func (f *fakeRaft) RemovePeer(_ context.Context, id string) error {
	f.note(&f.removed, id)
	return f.err
}
func (f *fakeRaft) Snapshot(_ context.Context, w io.Writer) error {
	if f.err != nil {
		return f.err
	}
	io.WriteString(w, "snapshot's ")
	if f.midway != nil {
		return f.midway
	}
	_, err := io.WriteString(w, "bytes")
	return err
}
func (f *fakeRaft) Restore(_ context.Context, r io.Reader, force bool) error {
	all, err := io.ReadAll(r)
	f.note(&f.restored, string(all))
	f.mu.Lock()
	f.forced = force
	f.mu.Unlock()
	return errors.Join(err, f.err)
}
func (f *fakeRaft) Challenge(_ context.Context, said json.RawMessage) (any, error) {
	f.note(&f.said, string(said))
	return map[string]string{"nonce": "bm9uY2U="}, f.err
}
func (f *fakeRaft) Answer(_ context.Context, said json.RawMessage) (any, error) {
	f.note(&f.said, string(said))
	return map[string]string{"proof": "cHJvb2Y="}, f.err
}

// call makes a request to h with the root token.
func call(h http.Handler, method, path, body string) *httptest.ResponseRecorder {
	return do(h, request(method, path, body))
}

func request(method, path, body string) *http.Request {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, path, reader)
	r.Header.Set("X-Vault-Token", rootToken)
	return r
}

func do(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// golden compares an answer's status and body with testdata/NAME.json. Clients parse these bytes: a change is seen here.
func golden(t *testing.T, name string, w *httptest.ResponseRecorder) {
	t.Helper()
	var pretty bytes.Buffer
	if w.Body.Len() > 0 {
		if err := json.Indent(&pretty, w.Body.Bytes(), "", "  "); err != nil {
			t.Fatalf("%s: not JSON: %v: %s", name, err, w.Body)
		}
	}
	got := http.StatusText(w.Code)
	got = strings.TrimSpace(strings.Join([]string{itoa(w.Code), got}, " ")) + "\n" + pretty.String()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

// errorsOf parses an error answer and checks what every one must have.
func errorsOf(t *testing.T, w *httptest.ResponseRecorder) errorBody {
	t.Helper()
	var body errorBody
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatalf("error answer is not JSON: %v: %q", err, w.Body)
	}
	if len(body.Errors) == 0 || len(body.Errors[0]) < 10 {
		t.Errorf("no sentence in %s", w.Body)
	}
	if w.Code == http.StatusServiceUnavailable && w.Header().Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	if w.Header().Get("Cache-Control") != "no-store" {
		t.Error("answer may be cached")
	}
	if w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("content type %q", w.Header().Get("Content-Type"))
	}
	return body
}

func testConfig() Config {
	return Config{
		Now:         func() time.Time { return noon },
		RequestInfo: func(context.Context) RequestInfo { return RequestInfo{ID: "req-1", Slot: "id-a/1/1", Key: "key-1"} },
	}
}

func mustJSON(t *testing.T, r io.Reader, v any) {
	t.Helper()
	if err := json.NewDecoder(r).Decode(v); err != nil {
		t.Fatal(err)
	}
}
