package barrier

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/locum-ha/locum/physical"
)

// vectors are stored formats as they were first written. They never change: what an old version wrote stays
// readable for ever.
type vectors struct {
	RootKey string
	Keyring string            // sealed by the root key
	Entries map[string]string // sealed by keys of the keyring
	Values  map[string]string
	Derived map[string]string
	Term    uint32
	Used    uint64
}

func TestVectors(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	unhex := func(text string) []byte {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	s := newSpy(t)
	s.put(t, KeyKeyring, unhex(v.Keyring))
	for name, sealed := range v.Entries {
		s.put(t, name, unhex(sealed))
	}
	b := New(s, Options{})
	if err := b.Unseal(t.Context(), unhex(v.RootKey)); err != nil {
		t.Fatal(err)
	}
	if st := status(t, b); st.Term != v.Term || st.Encryptions != v.Used || st.InstallTime.IsZero() {
		t.Errorf("%+v", st)
	}
	if len(v.Entries) < 3 || len(v.Derived) < 2 {
		t.Fatal("vectors are missing")
	}
	for name := range v.Entries {
		mustGet(t, b.View(nil), name, string(unhex(v.Values[name])))
	}
	for purpose, want := range v.Derived {
		if got, err := b.DeriveKey(purpose); err != nil || hex.EncodeToString(got) != want {
			t.Errorf("%s: %x, %v", purpose, got, err)
		}
	}
	// What this build writes has the same shape.
	if err := b.View(nil).Commit(t.Context(), physical.Put("new", nil)); err != nil {
		t.Fatal(err)
	}
	if raw := s.raw(t, "new"); raw[0] != 1 || termOf(t, s, "new") != v.Term || len(raw) != 33 {
		t.Errorf("%x", raw)
	}
}
