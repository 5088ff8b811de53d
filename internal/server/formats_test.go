package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/api"
)

// Entries that are stored by this package stay readable: these are frozen.
func TestFrozenFormats(t *testing.T) {
	const history = `{"format":1,"leaderships":[{"term":2,"node_id":"b","node":"node-b","from":"2026-11-20T10:00:00Z","to":null,"reason":""},` +
		`{"term":1,"node_id":"a","node":"node-a","from":"2026-11-20T09:00:00Z","to":"2026-11-20T10:00:00Z","reason":"stepped down"}]}`
	var h storedHistory
	if err := json.Unmarshal([]byte(history), &h); err != nil {
		t.Fatal(err)
	}
	op, err := writeHistory(h.Leaderships)
	if err != nil || string(op.Value) != history || op.Key != "core/history" {
		t.Fatalf("%v\n%s %s\nwant\n%s", err, op.Key, op.Value, history)
	}
	const cluster = `{"format":1,"id":"1d7088ea-ebff-4e6a-a6c5-1a3cb7785384"}`
	var c clusterInfo
	if err := json.Unmarshal([]byte(cluster), &c); err != nil {
		t.Fatal(err)
	}
	if data, _ := json.Marshal(c); string(data) != cluster {
		t.Fatalf("%s, want %s", data, cluster)
	}
	const ordered = `{"format":1,"revision":3,"paused":"2026-11-20T10:00:00Z","maintenance":{"node-b":"2026-11-20T09:00:00Z"}}`
	var o orders
	if err := json.Unmarshal([]byte(ordered), &o); err != nil {
		t.Fatal(err)
	}
	if data, _ := json.Marshal(o); string(data) != ordered || !o.paused() || !o.inMaintenance("node-b") || keyOrders != "core/orders" {
		t.Fatalf("%s %s, want %s", keyOrders, data, ordered)
	}
	const kept = `{"format":1,"place":"consul locum/"}`
	var place lockPlace
	if err := json.Unmarshal([]byte(kept), &place); err != nil {
		t.Fatal(err)
	}
	if data, _ := json.Marshal(place); string(data) != kept || keyLockPlace != "core/lock-place" {
		t.Fatalf("%s %s, want %s", keyLockPlace, data, kept)
	}
	frozenInvitation(t)
	const said = `{"format":1,"id":"i","name":"n","api_addr":"a","cluster_addr":"c","version":"v","priority":100,"candidate":true,"term":3,` +
		`"reason":"r","incarnation":"i/1/","candidates":[{"id":"x","priority":7}]}`
	var hi hello
	if err := json.Unmarshal([]byte(said), &hi); err != nil {
		t.Fatal(err)
	}
	if data, _ := json.Marshal(hi); string(data) != said {
		t.Fatalf("%s, want %s", data, said)
	}
	if got, err := readHello("i", []byte(said)); err != nil || got.Name != "n" {
		t.Fatalf("%+v, %v", got, err)
	}
}

// Design, "Versions": a node that meets a newer format than it knows says so, once, and goes by nothing that it says.
func TestStrangeHellos(t *testing.T) {
	newer := strings.Replace(`{"format":N,"id":"i","name":"n","candidate":true}`, "N", fmt.Sprint(helloFormat+1), 1)
	for _, data := range []string{newer, `{"format":1,"id":"another"}`, `{`} {
		if h, err := readHello("i", []byte(data)); err == nil {
			t.Errorf("%s is taken for %+v", data, h)
		}
	}
	_, err := readHello("i", []byte(newer))
	if err == nil || !strings.Contains(err.Error(), "upgrade this node") {
		t.Fatalf("a newer format: %v", err)
	}
	var m members
	if !m.news("i", err) || m.news("i", err) || !m.news("j", err) || !m.news("i", errors.New("another")) {
		t.Error("it is not said once of each")
	}
	for i := range 10 * strangers {
		m.news(fmt.Sprint(i), err)
	}
	if len(m.strange) > strangers {
		t.Errorf("%d are remembered", len(m.strange))
	}
}

// The history tells of a leadership that ended without a step-down when it was seen to be over, and is bounded.
func TestHistory(t *testing.T) {
	start := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	var h []api.Leadership
	for i := range 150 {
		h = began(h, api.Leadership{Term: uint64(i + 1), Node: "n", From: start.Add(time.Duration(i) * time.Minute)})
	}
	if len(h) != historyLength || h[0].Term != 150 || h[0].To != nil {
		t.Fatalf("%d leaderships, the newest %+v", len(h), h[0])
	}
	if h[1].To == nil || !h[1].To.Equal(h[0].From) || h[1].Reason == "" {
		t.Fatalf("a lost leadership: %+v", h[1])
	}
	h = ended(h, 150, start.Add(200*time.Minute), "stepped down")
	h = ended(h, 150, start.Add(300*time.Minute), "again")
	if h[0].Reason != "stepped down" || !h[0].To.Equal(start.Add(200*time.Minute)) {
		t.Fatalf("a step-down: %+v", h[0])
	}
}

func frozenInvitation(t *testing.T) {
	const invited = `{"format":1,"secret":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}`
	secret, err := decodeInvitation([]byte(invited))
	if err != nil || len(secret) != 32 || secret[31] != 31 {
		t.Fatalf("%x, %v", secret, err)
	}
	if op, err := writeInvitation(secret); err != nil || string(op.Value) != invited || op.Key != "core/invitation" {
		t.Fatalf("%v\n%s %s\nwant\n%s", err, op.Key, op.Value, invited)
	}
	if _, err := decodeInvitation([]byte(`{"format":2,"secret":{"key":"AAEC"}}`)); err == nil || !strings.Contains(err.Error(), "upgrade this node") {
		t.Errorf("a newer format: %v", err)
	}
	for _, refused := range []string{
		`{"format":2,"secret":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}`, `{"secret":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}`,
		`{"format":1,"secret":"AAEC"}`, "thirty-two bytes that are no JSON",
	} {
		if _, err := decodeInvitation([]byte(refused)); !errors.Is(err, errStoredInvitation) || strings.Contains(err.Error(), "AAEC") {
			t.Errorf("%s: %v", refused, err)
		}
	}
}
