package zookeeper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// The operations of ZooKeeper's protocol that are used here (zookeeper.jute, ZooDefs.OpCode).
const (
	opCreate       int32 = 1
	opDelete       int32 = 2
	opExists       int32 = 3
	opGetData      int32 = 4
	opSetData      int32 = 5
	opGetChildren  int32 = 8
	opSync         int32 = 9
	opPing         int32 = 11
	opCheck        int32 = 13
	opMulti        int32 = 14
	opAuth         int32 = 100
	opCloseSession int32 = -11
	opError        int32 = -1
)

// Numbers of requests that are not answered in turn.
const (
	xidNotification int32 = -1
	xidPing         int32 = -2
	xidAuth         int32 = -4
)

// The error codes that mean something here (KeeperException.Code).
const (
	codeOK             int32 = 0
	codeInconsistency  int32 = -2 // an operation of a multi that failed because of an earlier one
	codeNoNode         int32 = -101
	codeNoAuth         int32 = -102
	codeBadVersion     int32 = -103
	codeNodeExists     int32 = -110
	codeNotEmpty       int32 = -111
	codeSessionExpired int32 = -112
	codeAuthFailed     int32 = -115
	codeSessionMoved   int32 = -118
)

// codeError is an answer that says no.
type codeError int32

func (e codeError) Error() string {
	names := map[int32]string{
		codeNoNode: "no such node", codeNoAuth: "not authorised", codeBadVersion: "another version", codeNodeExists: "the node exists",
		codeNotEmpty: "the node has children", codeSessionExpired: "the session has run out", codeAuthFailed: "user name or password is wrong",
		codeSessionMoved: "the session is used by another",
	}
	if name, ok := names[int32(e)]; ok {
		return fmt.Sprintf("ZooKeeper: %s (%d)", name, int32(e))
	}
	return fmt.Sprintf("ZooKeeper: error %d", int32(e))
}

// out is a packet that is being written, in jute's encoding: big endian, strings and buffers with their length before.
type out struct{ b []byte }

func (o *out) int32(v int32) { o.b = binary.BigEndian.AppendUint32(o.b, uint32(v)) }
func (o *out) int64(v int64) { o.b = binary.BigEndian.AppendUint64(o.b, uint64(v)) }

func (o *out) bool(v bool) {
	if v {
		o.b = append(o.b, 1)
	} else {
		o.b = append(o.b, 0)
	}
}

func (o *out) string(s string) { o.int32(int32(len(s))); o.b = append(o.b, s...) }
func (o *out) buffer(b []byte) { o.int32(int32(len(b))); o.b = append(o.b, b...) }

// newPacket begins a packet; its length is filled in by finish.
func newPacket() *out { return &out{b: make([]byte, 4, 256)} }

func (o *out) finish() []byte {
	binary.BigEndian.PutUint32(o.b, uint32(len(o.b)-4))
	return o.b
}

// in is a packet that is being read. After the first fault all that is read is zero.
type in struct {
	b   []byte
	err error
}

var errShort = errors.New("ZooKeeper: a packet is shorter than it says")

func (i *in) take(n int) []byte {
	if i.err != nil || n < 0 || n > len(i.b) {
		i.err = errShort
		return make([]byte, max(0, min(n, 16)))
	}
	taken := i.b[:n]
	i.b = i.b[n:]
	return taken
}

func (i *in) int32() int32 { return int32(binary.BigEndian.Uint32(i.take(4))) }
func (i *in) int64() int64 { return int64(binary.BigEndian.Uint64(i.take(8))) }
func (i *in) bool() bool   { return i.take(1)[0] != 0 }

// buffer is shared with the packet, which nobody else keeps.
func (i *in) buffer() []byte {
	n := int(i.int32())
	if n <= 0 || i.err != nil {
		return nil // -1 stands for null
	}
	return i.take(n)
}

func (i *in) string() string { return string(i.buffer()) }

// stat is what is known of a node.
type stat struct {
	version  int32 // of its data
	owner    int64 // the session of an ephemeral node, or 0
	children int32
}

func (i *in) stat() stat {
	i.take(8 + 8 + 8 + 8) // zxids and times of creation and change
	s := stat{version: i.int32()}
	i.take(4 + 4) // versions of children and rights
	s.owner = i.int64()
	i.take(4) // length of the data
	s.children = i.int32()
	i.take(8) // zxid of the last change of children
	return s
}

// acl is who may do what with a node.
type acl struct{ scheme, id string }

// allRights are read, write, create, delete and admin.
const allRights int32 = 31

// step is one operation of a multi.
type step struct {
	op      int32
	path    string
	data    []byte
	version int32 // -1: any
	flags   int32 // of a create
}

const flagEphemeral int32 = 1

func createStep(path string, data []byte) step { return step{op: opCreate, path: path, data: data} }
func deleteStep(path string) step              { return step{op: opDelete, path: path, version: -1} }
func checkStep(path string, version int32) step {
	return step{op: opCheck, path: path, version: version}
}
func setStep(path string, data []byte, version int32) step {
	return step{op: opSetData, path: path, data: data, version: version}
}

// write encodes the operation, as in a multi and as a request of its own.
func (s step) write(o *out, rights acl) {
	o.string(s.path)
	switch s.op {
	case opCreate:
		o.buffer(s.data)
		o.int32(1)
		o.int32(allRights)
		o.string(rights.scheme)
		o.string(rights.id)
		o.int32(s.flags)
	case opSetData:
		o.buffer(s.data)
		o.int32(s.version)
	default:
		o.int32(s.version)
	}
}

// framing is about what a step of a multi takes besides its path and data.
const framing = 64

// encodeMulti makes a multi's body.
func encodeMulti(steps []step, rights acl) []byte {
	size := framing
	for _, s := range steps {
		size += len(s.path) + len(s.data) + framing
	}
	o := &out{b: make([]byte, 0, size)}
	for _, s := range steps {
		o.int32(s.op)
		o.bool(false)
		o.int32(-1)
		s.write(o, rights)
	}
	o.int32(-1)
	o.bool(true)
	o.int32(-1)
	return o.b
}

// multiError is a multi of which one operation failed, and so none was carried out.
type multiError struct {
	index int // of the first operation that failed by itself
	code  codeError
}

func (e *multiError) Error() string { return fmt.Sprintf("operation %d: %v", e.index, e.code) }

// raced reports whether a multi was refused since what is there is not what it was made for: others came first. All else that a
// multi is refused for is a failure: a right that is missing, say.
func raced(err error) bool {
	var failed *multiError
	return errors.As(err, &failed) && slices.Contains([]int32{codeNoNode, codeNodeExists, codeBadVersion, codeNotEmpty}, int32(failed.code))
}

// hasCode reports whether an answer, or an operation of a multi, is this code.
func hasCode(err error, code int32) bool {
	var failed *multiError
	var plain codeError
	return errors.As(err, &failed) && int32(failed.code) == code || errors.As(err, &plain) && int32(plain) == code
}

// readMulti reads the answer to a multi: the version of the node that each operation left, or a *multiError.
func readMulti(i *in) ([]int32, error) {
	var failed *multiError
	var versions []int32
	for n := 0; ; n++ {
		kind, done := i.int32(), i.bool()
		i.int32()
		if done || i.err != nil {
			break
		}
		version := int32(0)
		switch kind {
		case opCreate:
			_ = i.string()
		case opSetData:
			version = i.stat().version
		case opError:
			if code := i.int32(); code != codeOK && code != codeInconsistency && failed == nil {
				failed = &multiError{index: n, code: codeError(code)}
			}
		}
		versions = append(versions, version)
	}
	if i.err != nil {
		return nil, i.err
	}
	if failed != nil {
		return nil, failed
	}
	return versions, nil
}
