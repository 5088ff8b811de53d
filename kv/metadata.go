package kv

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"
)

// defaultMaxVersions is how many versions are kept unless configured.
const defaultMaxVersions = 10

// version is what the metadata have of one version. Times are Unix times in ns; 0 is none.
type version struct {
	number    uint64
	created   int64
	deletion  int64 // when it was, or will be, deleted
	destroyed bool
}

func (v *version) gone(now int64) bool {
	return v.destroyed || v.deletion != 0 && v.deletion < now
}

// metadata is all that is stored of a path but the data. The fields that the interface shows have Vault's meaning.
type metadata struct {
	current     uint64 // the newest version's number; 0 if there was none
	oldest      uint64 // the oldest one kept; 0 until the window first moved
	swept       uint64 // data of versions below this one have been removed from the store
	maxVersions uint64
	casRequired bool
	deleteAfter time.Duration
	created     int64
	updated     int64
	custom      map[string]string
	versions    []version // by rising number
	records     []record  // of requests that made versions, and may be repeated; the oldest first
	inline      Object    // data of the current version, where they lie with the metadata; nil: in an entry of their own
}

func (m *metadata) find(number uint64) *version {
	i, ok := slices.BinarySearchFunc(m.versions, number, func(v version, n uint64) int {
		switch {
		case v.number < n:
			return -1
		case v.number > n:
			return 1
		}
		return 0
	})
	if !ok {
		return nil
	}
	return &m.versions[i]
}

// add makes a new version and moves the window of versions kept.
func (m *metadata) add(now, deletion int64, keep uint64) version {
	m.current++
	v := version{number: m.current, created: now, deletion: deletion}
	m.versions = append(m.versions, v)
	m.updated = now
	if m.created == 0 {
		m.created = now
	}
	if m.current-m.oldest >= keep {
		m.oldest = m.current - keep + 1
		m.versions = slices.DeleteFunc(m.versions, func(v version) bool { return v.number < m.oldest })
	}
	return v
}

// sweep names the versions whose data no metadata speak of any more, at most limit, and takes them for removed.
func (m *metadata) sweep(limit int) (numbers []uint64) {
	for m.swept < m.oldest && len(numbers) < limit {
		if m.swept > 0 {
			numbers = append(numbers, m.swept)
		}
		m.swept++
	}
	return numbers
}

func (m *metadata) keep(c Config) uint64 {
	if n := max(m.maxVersions, uint64(max(c.MaxVersions, 0))); n > 0 {
		return n
	}
	return defaultMaxVersions
}

// deletionTime is when a version made now is to be deleted: the shorter of the path's and the general setting.
func (m *metadata) deletionTime(c Config, now int64) int64 {
	after := m.deleteAfter
	switch {
	case c.DeleteVersionAfter < 0:
		return 0
	case after == 0 || c.DeleteVersionAfter > 0 && c.DeleteVersionAfter < after:
		after = c.DeleteVersionAfter
	}
	if after == 0 {
		return 0
	}
	return now + int64(after)
}

func (m *metadata) describe(v version) VersionMetadata {
	return VersionMetadata{
		Version: v.number, CreatedTime: fromNano(v.created), DeletionTime: fromNano(v.deletion),
		Destroyed: v.destroyed, CustomMetadata: m.custom,
	}
}

// VersionMetadata describes one version. It encodes as Vault shows it.
type VersionMetadata struct {
	Version        uint64
	CreatedTime    time.Time
	DeletionTime   time.Time // when it was, or will be, deleted; zero: never
	Destroyed      bool
	CustomMetadata map[string]string // of the path
}

type jsonVersion struct {
	CreatedTime    string            `json:"created_time"`
	CustomMetadata map[string]string `json:"custom_metadata"`
	DeletionTime   string            `json:"deletion_time"`
	Destroyed      bool              `json:"destroyed"`
	Version        uint64            `json:"version"`
}

// MarshalJSON writes times as RFC 3339 with nanoseconds, and "" for none.
func (v VersionMetadata) MarshalJSON() ([]byte, error) { return v.AppendJSON(nil), nil }

// AppendJSON is MarshalJSON behind b: every read of an entry shows one.
func (v VersionMetadata) AppendJSON(b []byte) []byte {
	b = appendTime(append(b, `{"created_time":`...), v.CreatedTime)
	b = append(b, `,"custom_metadata":`...)
	if len(v.CustomMetadata) == 0 {
		b = append(b, "null"...)
	} else {
		custom, _ := json.Marshal(v.CustomMetadata) // of strings: cannot fail
		b = append(b, custom...)
	}
	b = appendTime(append(b, `,"deletion_time":`...), v.DeletionTime)
	b = strconv.AppendBool(append(b, `,"destroyed":`...), v.Destroyed)
	b = strconv.AppendUint(append(b, `,"version":`...), v.Version, 10)
	return append(b, '}')
}

func appendTime(b []byte, t time.Time) []byte {
	b = append(b, '"')
	if !t.IsZero() {
		b = t.UTC().AppendFormat(b, time.RFC3339Nano)
	}
	return append(b, '"')
}

// UnmarshalJSON is the reverse of MarshalJSON.
func (v *VersionMetadata) UnmarshalJSON(data []byte) (err error) {
	var j jsonVersion
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	*v = VersionMetadata{Version: j.Version, Destroyed: j.Destroyed, CustomMetadata: j.CustomMetadata}
	if v.CreatedTime, err = parseTime(j.CreatedTime); err != nil {
		return err
	}
	v.DeletionTime, err = parseTime(j.DeletionTime)
	return err
}

// Metadata describes a path. It encodes as Vault shows it.
type Metadata struct {
	CurrentVersion     uint64
	OldestVersion      uint64 // 0 until versions were first removed
	MaxVersions        int    // 0: as configured for all paths
	CASRequired        bool
	DeleteVersionAfter time.Duration
	CreatedTime        time.Time
	UpdatedTime        time.Time
	CustomMetadata     map[string]string
	Versions           []VersionMetadata // by rising number
}

// MarshalJSON writes versions as an object by number, times as RFC 3339 and durations as Go does ("1h0m0s").
func (m Metadata) MarshalJSON() ([]byte, error) {
	type jsonOne struct {
		CreatedTime  string `json:"created_time"`
		DeletionTime string `json:"deletion_time"`
		Destroyed    bool   `json:"destroyed"`
	}
	versions := make(map[string]jsonOne, len(m.Versions))
	for _, v := range m.Versions {
		versions[strconv.FormatUint(v.Version, 10)] = jsonOne{formatTime(v.CreatedTime), formatTime(v.DeletionTime), v.Destroyed}
	}
	return json.Marshal(struct {
		CASRequired        bool               `json:"cas_required"`
		CreatedTime        string             `json:"created_time"`
		CurrentVersion     uint64             `json:"current_version"`
		CustomMetadata     map[string]string  `json:"custom_metadata"`
		DeleteVersionAfter string             `json:"delete_version_after"`
		MaxVersions        int                `json:"max_versions"`
		OldestVersion      uint64             `json:"oldest_version"`
		UpdatedTime        string             `json:"updated_time"`
		Versions           map[string]jsonOne `json:"versions"`
	}{
		m.CASRequired, formatTime(m.CreatedTime), m.CurrentVersion, orNull(m.CustomMetadata), m.DeleteVersionAfter.String(),
		m.MaxVersions, m.OldestVersion, formatTime(m.UpdatedTime), versions,
	})
}

func (m *metadata) export() Metadata {
	out := Metadata{
		CurrentVersion: m.current, OldestVersion: m.oldest, MaxVersions: int(m.maxVersions), CASRequired: m.casRequired,
		DeleteVersionAfter: m.deleteAfter, CreatedTime: fromNano(m.created), UpdatedTime: fromNano(m.updated),
		CustomMetadata: maps.Clone(m.custom),
	}
	for _, v := range m.versions {
		out.Versions = append(out.Versions, m.describe(v))
	}
	return out
}

func orNull(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return m
}

func fromNano(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func parseTime(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	return time.Parse(time.RFC3339Nano, text)
}
