package cache

import (
	"bufio"
	"bytes"
	"testing"
	"time"

	hraft "github.com/hashicorp/raft"
)

// FuzzEntry: no bytes in the log bring a node down, and what is read is written the same.
func FuzzEntry(f *testing.F) {
	r := request{watch: []Watch{{"c", "k", 7}}, ops: []Op{
		{Kind: OpPut, Cache: "c", Key: "k", Value: []byte("v"), TTL: time.Minute, If: IfValue, Expect: []byte("x"), WantOld: true},
		{Kind: OpIncrement, Cache: "c", Key: "n", Delta: -3}, {Kind: OpClear, Cache: "c"},
		{Kind: OpPut, Cache: "c", Key: "d", base: 3, from: "me", ends: 5},
	}}
	f.Add(appendRequest([]byte{entryFormat, 1, 2, 3, 4, 5, 6, 7, 8, 2, 1}, &r))
	f.Add([]byte{entryFormat})
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := decodeBatch(data, map[string]string{}, nil)
		if err != nil {
			return
		}
		newState(nil).apply(b)
		for i := range b.requests {
			d := decoder{b: appendRequest(nil, &b.requests[i])}
			d.request(nil)
			if d.end("request") != nil {
				t.Fatalf("%+v is not read as it is written", b.requests[i])
			}
		}
	})
}

// FuzzMessages: nor do bytes from the network.
func FuzzMessages(f *testing.F) {
	f.Add(byte(msgAppend), appendAppend(nil, &hraft.AppendEntriesRequest{Term: 3, Entries: []*hraft.Log{{Index: 1, Term: 1, Data: []byte("x")}}})[5:])
	f.Add(byte(msgPulse), appendPulse(nil, pulse{term: 1, open: true})[5:])
	f.Add(byte(msgVote), appendVote(nil, msgVote, 1, 2, 3, true)[5:])
	f.Add(byte(msgChunk), appendHello(nil, make([]byte, nonceSize), hello{purpose: forRaft, from: "a", to: "b"}))
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		switch kind {
		case msgAppend:
			_, _ = decodeAppend(body)
		case msgVote:
			_, _ = decodeVote(body)
		case msgPulse:
			_, _ = decodePulse(body)
		case msgSnapshot:
			_, _ = decodeSnapshotRequest(body)
		case msgChunk:
			_, _ = decodeHello(body)
			p := &parcel{st: newState(nil), store: &snapshots{fsm: newFSM(nil, newMemLog())}}
			if _, err := p.Write(body); err == nil && p.whole && p.Close() != nil && len(p.buf) == 0 {
				t.Fatal("a whole state is refused")
			}
		default:
			d := decoder{b: body}
			d.outcome()
			frame, err := readFrame(bufio.NewReader(bytes.NewReader(body)), nil)
			if err == nil && len(frame) == 0 {
				t.Fatal("an empty frame")
			}
		}
	})
}
