package physical

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Caps is what a store can do. It is printed at start, tested, and shown in the docs as one table. A limit
// of 0 means that the store has none of its own.
type Caps struct {
	Name       string        // the storage name in the configuration: "raft", "consul", …
	Entries    bool          // can be storage: it is a Backend
	HA         bool          // can hold the HA lock: it is an HABackend
	Watch      bool          // wakes standbys (Watcher); else they poll
	LocalReads bool          // a standby's Get is answered from this host's own copy: cheap, perhaps behind
	Shared     bool          // several nodes can open it; false: one process only, as memory or files
	MaxKey     int           // bytes of a key
	MaxValue   int           // bytes of a value
	MaxOps     int           // ops in one commit
	MaxCommit  int           // bytes of keys and values in one commit
	MinTTL     time.Duration // the shortest sensible TTL of a lock
	DefaultTTL time.Duration // the TTL unless configured
	Failover   string        // one sentence: what happens to lock and entries when the store itself fails over
}

// Check refuses what exceeds the limits with a *TooLargeError, and what is not a valid commit with
// another error. Every store calls it first in Commit, so that the refusal is the same everywhere.
func (c Caps) Check(ops []Op) error {
	if over(len(ops), c.MaxOps) {
		return &TooLargeError{What: "ops in a commit", Size: len(ops), Limit: c.MaxOps}
	}
	total := 0
	written, conditioned := make(map[string]bool, len(ops)), make(map[string]bool, len(ops))
	for _, op := range ops {
		if err := CheckKey(op.Key); err != nil {
			return err
		}
		switch op.Kind {
		case OpPut, OpDelete, OpRequireAbsent, OpRequireValue:
		default:
			return fmt.Errorf("%w: op %d on %q", ErrInvalid, op.Kind, op.Key)
		}
		kind := &written
		if op.IsCondition() {
			kind = &conditioned
		}
		if (*kind)[op.Key] {
			return fmt.Errorf("%w: two ops of one kind on %q in a commit", ErrInvalid, op.Key)
		}
		(*kind)[op.Key] = true
		if over(len(op.Key), c.MaxKey) {
			return &TooLargeError{What: "key", Key: op.Key, Size: len(op.Key), Limit: c.MaxKey}
		}
		if over(len(op.Value), c.MaxValue) {
			return &TooLargeError{What: "value", Key: op.Key, Size: len(op.Value), Limit: c.MaxValue}
		}
		total += len(op.Key) + len(op.Value)
	}
	if over(total, c.MaxCommit) {
		return &TooLargeError{What: "bytes in a commit", Size: total, Limit: c.MaxCommit}
	}
	return nil
}

func over(size, limit int) bool { return limit > 0 && size > limit }

// CheckKey reports what is wrong with a key, or nil.
func CheckKey(key string) error {
	switch {
	case key == "":
		return fmt.Errorf("%w: empty key", ErrInvalid)
	case !utf8.ValidString(key):
		return fmt.Errorf("%w: key %q is not valid UTF-8", ErrInvalid, key)
	case strings.ContainsFunc(key, unicode.IsControl):
		return fmt.Errorf("%w: key %q has a control character", ErrInvalid, key)
	}
	for segment := range strings.SplitSeq(key, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return fmt.Errorf("%w: key %q has an empty, \".\" or \"..\" segment", ErrInvalid, key)
		}
	}
	return nil
}

// CheckPrefix reports what is wrong with a prefix of List, or nil.
func CheckPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	if !strings.HasSuffix(prefix, "/") {
		return fmt.Errorf("%w: prefix %q does not end in \"/\"", ErrInvalid, prefix)
	}
	return CheckKey(strings.TrimSuffix(prefix, "/"))
}
