package raft

import (
	"bufio"
	"bytes"
	"io"
	"testing"

	hraft "github.com/hashicorp/raft"
)

// Decoders face what a damaged disk or a hostile peer sends: they return an error, and take no more
// memory than the input is worth.

func FuzzDecodeEntry(f *testing.F) {
	data := []byte{commandFormat}
	for _, r := range frozenRequests() {
		data = r.append(data)
		f.Add(bytes.Clone(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		requests, err := decodeEntry(data)
		if err != nil {
			return
		}
		again := []byte{commandFormat}
		for i := range requests {
			again = requests[i].append(again)
		}
		if _, err := decodeEntry(again); err != nil {
			t.Errorf("what was read cannot be written and read again: %v", err)
		}
	})
}

func FuzzDecodeLog(f *testing.F) {
	f.Add(appendLog(nil, entry(1, 2, 30)))
	f.Fuzz(func(_ *testing.T, data []byte) { _ = decodeLog(1, data, new(hraft.Log)) })
}

func FuzzWire(f *testing.F) {
	frame := appendAppend(nil, &hraft.AppendEntriesRequest{Term: 3, Entries: []*hraft.Log{entry(1, 2, 30), entry(2, 2, 0)}})
	f.Add(byte(0), frame[5:])
	f.Add(byte(1), appendVote(nil, msgVote, 1, 2, 3, true)[5:])
	f.Add(byte(2), appendSnapshotRequest(nil, &hraft.InstallSnapshotRequest{Term: 1, Configuration: []byte("c"), Size: 9})[5:])
	f.Add(byte(3), appendHello(nil, identity{"a", "b"}, "c"))
	f.Add(byte(4), frame)
	f.Fuzz(func(t *testing.T, kind byte, data []byte) {
		switch kind % 5 {
		case 0:
			m, err := decodeAppend(data)
			if err == nil && !bytes.Equal(appendAppend(nil, m)[5:], data) {
				if again, err := decodeAppend(appendAppend(nil, m)[5:]); err != nil || len(again.Entries) != len(m.Entries) {
					t.Errorf("what was read cannot be written and read again: %v", err)
				}
			}
		case 1:
			_, _ = decodeVoteRequest(data)
			_, _, _ = decodeVoteAnswer(data)
			_ = decodeAppendAnswer(data, new(hraft.AppendEntriesResponse))
		case 2:
			_, _ = decodeSnapshotRequest(data)
			_ = decodeSnapshotAnswer(data, new(hraft.InstallSnapshotResponse))
		case 3:
			_, _, _ = readHello(bufio.NewReader(bytes.NewReader(data)))
		case 4:
			_, _ = readFrame(bufio.NewReader(bytes.NewReader(data)), nil)
		}
	})
}

func FuzzSnapshot(f *testing.F) {
	var b bytes.Buffer
	w := newSnapshotWriter(&b, header{index: 9, fence: frozenFence})
	_ = w.entry([]byte("a"), []byte("b"))
	_ = w.finish(&b)
	f.Add(b.Bytes())
	f.Fuzz(func(_ *testing.T, data []byte) {
		_ = readSnapshot(io.LimitReader(bytes.NewReader(data), 1<<20), func(header) error { return nil }, func(_, _ []byte) error { return nil })
	})
}

func FuzzVote(f *testing.F) {
	f.Add(make([]byte, voteCopy))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if len(data) >= 16 {
			_, _, _ = decodeVote(data)
		}
	})
}
