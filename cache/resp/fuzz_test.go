package resp

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// drain reads commands until the input ends or is refused. It fails on an endless loop.
func drain(t *testing.T, in io.Reader, limit int) (commands [][]string, err error) {
	r := reader{from: in, maxArgs: 64, maxBytes: 4096}
	for {
		args, err := r.next(true)
		switch {
		case errors.Is(err, errMore):
			if err := r.fill(); err != nil {
				return commands, nil
			}
		case err != nil:
			return commands, err
		case len(args) > 0:
			var words []string
			for _, arg := range args {
				words = append(words, string(arg))
			}
			commands = append(commands, words)
		}
		if len(commands) > limit {
			t.Fatal("more commands than bytes")
		}
		if len(r.buf) > 4096+maxLine+64*32+2*keepBuffer {
			t.Fatalf("the buffer has %d bytes", len(r.buf))
		}
	}
}

// FuzzReader: whatever comes, in whatever pieces, is read as the same commands, in bounded memory, without a panic (P12).
func FuzzReader(f *testing.F) {
	f.Add([]byte(encode("SET", "k", "v") + "PING\r\n" + encode("GET", "k")))
	f.Add([]byte("*1\r\n$4\r\nPING\r\n*0\r\n*-1\r\nGET \"a\\x41\" 'b'\n"))
	f.Add([]byte("*2\r\n$3\r\nGET\r\n$99999\r\n"))
	f.Add([]byte("*3\r\n$1\r\nx\r\n:1\r\n"))
	f.Fuzz(func(t *testing.T, input []byte) {
		whole, err := drain(t, bytes.NewReader(input), len(input)+1)
		pieces, perr := drain(t, iotest.OneByteReader(bytes.NewReader(input)), len(input)+1)
		if len(whole) != len(pieces) || (err == nil) != (perr == nil) {
			if err == nil || perr == nil || err.Error() != perr.Error() {
				t.Fatalf("as a whole %q %v, byte by byte %q %v", whole, err, pieces, perr)
			}
		}
		for i := range min(len(whole), len(pieces)) {
			if strings.Join(whole[i], "\x00") != strings.Join(pieces[i], "\x00") {
				t.Fatalf("command %d: %q and %q", i, whole[i], pieces[i])
			}
		}
	})
}

// FuzzMatch: a pattern takes bounded time, and matches what it is meant to.
func FuzzMatch(f *testing.F) {
	for _, s := range []string{"a*b", "[a-c]?\\*", "*****x", "[^a", "[]", "\\"} {
		f.Add([]byte(s), "aXb")
	}
	f.Fuzz(func(t *testing.T, pattern []byte, text string) {
		match(pattern, text)
		if !match([]byte("*"), text) {
			t.Errorf("* does not match %q", text)
		}
		var quoted []byte
		for i := range len(text) {
			quoted = append(quoted, '\\', text[i])
		}
		if !match(quoted, text) {
			t.Errorf("%q does not match itself quoted", text)
		}
	})
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"a*", "abc", true}, {"*c", "abc", true}, {"a*c*e", "abcde", true}, {"a*c*e", "abcd", false},
		{"?", "a", true}, {"?", "", false}, {"h[ae]llo", "hello", true}, {"h[ae]llo", "hillo", false}, {"h[^e]llo", "hello", false}, {"h[a-c]llo", "hbllo", true},
		{"h[c-a]llo", "hbllo", true}, {`a\*b`, "a*b", true}, {`a\*b`, "axb", false}, {"[", "[", false}, {"user:*:s", "user:1:2:s", true},
	} {
		if got := match([]byte(c.pattern), c.text); got != c.want {
			t.Errorf("match(%q, %q) = %t", c.pattern, c.text, got)
		}
	}
	if match([]byte(strings.Repeat("a*", 50)+"b"), strings.Repeat("a", 2000)) {
		t.Error("it matches") // it must come to an end, though
	}
}
