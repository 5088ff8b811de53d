package cluster

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// update writes the vectors anew. They are frozen: only a new format may add a file.
var update = flag.Bool("update", false, "write missing test vectors")

func vector(t testing.TB, name string, fresh func() []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && *update {
		data = fresh()
		err = os.WriteFile(path, data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What format 1 wrote stays readable, and is written the same.
func TestFrozenAuthority(t *testing.T) {
	data := vector(t, "authority-v1.json", func() []byte {
		a, err := NewClusterAuthority(time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC))
		if err != nil {
			t.Fatal(err)
		}
		return must(a.Marshal())
	})
	a, err := ParseAuthority(data)
	if err != nil {
		t.Fatal(err)
	}
	if got := must(a.Marshal()); !bytes.Equal(got, data) {
		t.Errorf("written differently:\n%s\n%s", got, data)
	}
	if _, err := a.Mint("n", "id"); err != nil {
		t.Error(err)
	}
}

func TestFrozenRing(t *testing.T) {
	data := vector(t, "ring-v1.json", func() []byte {
		r := newRing(t)
		return must(r.Introduce(newRing(t).Minting()).Marshal())
	})
	r, err := ParseRing(data)
	if err != nil {
		t.Fatal(err)
	}
	if got := must(r.Marshal()); r.Len() != 2 || !bytes.Equal(got, data) {
		t.Errorf("%d authorities, written differently:\n%s\n%s", r.Len(), got, data)
	}
}

func TestFrozenAdvertisement(t *testing.T) {
	at := time.Date(2026, 11, 20, 10, 0, 0, 5, time.UTC)
	data := vector(t, "advertisement-v1.json", func() []byte {
		return must(newActive(t, 42).Advertise("https://a.example.com:8400/x", "https://a.example.com:8401", at).Marshal())
	})
	ad, err := ParseAdvertisement(data)
	if err != nil {
		t.Fatal(err)
	}
	if got := must(ad.Marshal()); !bytes.Equal(got, data) {
		t.Errorf("written differently:\n%s\n%s", got, data)
	}
	want := Advertisement{
		Term: 42, NodeID: "id-a", Name: "node-a", APIAddr: "https://a.example.com:8400/x",
		ClusterAddr: "https://a.example.com:8401", Authority: ad.Authority, ServerPin: ad.ServerPin, Time: at,
	}
	if diff := cmp.Diff(want, ad, cmp.Comparer(func(a, b *Authority) bool { return a.Equal(b) })); diff != "" {
		t.Error(diff)
	}
	if ad.ServerPin == (Pin{}) {
		t.Error("no pin")
	}
}

func TestNewerFormatIsSaid(t *testing.T) {
	parsers := map[string]func([]byte) error{
		"authority":     func(b []byte) error { _, err := ParseAuthority(b); return err },
		"ring":          func(b []byte) error { _, err := ParseRing(b); return err },
		"advertisement": func(b []byte) error { _, err := ParseAdvertisement(b); return err },
	}
	for name, parse := range parsers {
		if err := parse([]byte(`{"format":2,"term":"of another shape"}`)); !errors.Is(err, ErrNewerFormat) {
			t.Errorf("%s of format 2: %v, want ErrNewerFormat", name, err)
		}
		for _, bad := range []string{"", "{}", "[]", `{"format":-1}`, `{"format":1}`, `{"format":1,"authorities":[{}]}`, "\x00"} {
			if err := parse([]byte(bad)); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s %q: %v, want ErrMalformed", name, bad, err)
			}
		}
	}
	var nested map[string]any
	if err := json.Unmarshal(vector(t, "advertisement-v1.json", nil), &nested); err != nil {
		t.Fatal(err)
	}
	nested["authority"].(map[string]any)["format"] = 9
	if _, err := ParseAdvertisement(must(json.Marshal(nested))); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("an advertised authority of format 9: %v, want ErrNewerFormat", err)
	}
}

// An authority whose key is another's, or that is a leaf, is refused.
func TestAuthorityThatIsNone(t *testing.T) {
	a, b := newRing(t).Minting(), newRing(t).Minting()
	leaf, err := a.Mint("n", "id")
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]*Authority{
		"mixed": {cert: a.cert, key: b.key},
		"leaf":  {cert: leaf.Leaf, key: a.key},
	} {
		if _, err := ParseAuthority(must(bad.Marshal())); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
}

// Secrets never reach a log: no way of printing shows the key.
func TestKeysAreNotPrinted(t *testing.T) {
	active := newActive(t, 7)
	ad := active.Advertise("https://a:1", "https://a:2", time.Now())
	raw := must(active.authority.key.Bytes())
	secrets := []string{new(big.Int).SetBytes(raw).String(), fmt.Sprintf("%x", raw), fmt.Sprint(raw), base64.StdEncoding.EncodeToString(raw)}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		for _, v := range []any{ad, &ad, ad.Authority, must(json.Marshal(ad))} {
			out := fmt.Sprintf(format, v)
			for _, secret := range append(secrets, "privatekey", "PrivateKey") {
				if strings.Contains(out, secret) {
					t.Errorf("%s of %T shows the key", format, v)
				}
			}
		}
	}
}

func FuzzParseAuthority(f *testing.F) {
	f.Add(vector(f, "authority-v1.json", nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := ParseAuthority(data)
		if err != nil {
			return
		}
		if again, err := ParseAuthority(must(a.Marshal())); err != nil || !again.Equal(a) {
			t.Errorf("does not read back: %v", err)
		}
	})
}

func FuzzParseRing(f *testing.F) {
	f.Add(vector(f, "ring-v1.json", nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRing(data)
		if err == nil && r.Minting() == nil {
			t.Error("a ring without an authority")
		}
	})
}

func FuzzParseAdvertisement(f *testing.F) {
	f.Add(vector(f, "advertisement-v1.json", nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		ad, err := ParseAdvertisement(data)
		if err != nil {
			return
		}
		if ad.Authority == nil || ad.Term == 0 {
			t.Errorf("accepted %s", ad)
		}
		again, err := ParseAdvertisement(must(ad.Marshal()))
		if err != nil || again.String() != ad.String() {
			t.Errorf("does not read back: %v", err)
		}
	})
}

func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}
