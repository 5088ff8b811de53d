package kv

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	configKey  = "kv/config"
	metaPrefix = "kv/meta/"
	dataPrefix = "kv/data/"

	emptySegment = "%" // no other segment escapes to this
)

func metaKey(escaped string) string { return metaPrefix + escaped }

func dataKey(escaped string, version uint64) string {
	return dataPrefix + escaped + "/" + strconv.FormatUint(version, 10)
}

// checkPath refuses what no write can name.
func checkPath(path string) error {
	if path == "" {
		return invalidf("missing path")
	}
	if strings.HasSuffix(path, "/") {
		return invalidf("cannot write to a path ending in '/'")
	}
	return nil
}

// escapePath gives the path as a store takes it: one key of valid segments for each path, and no key for two.
func escapePath(path string) string {
	if plain(path) {
		return path
	}
	segments := strings.Split(path, "/")
	for i, s := range segments {
		segments[i] = escapeSegment(s)
	}
	return strings.Join(segments, "/")
}

// plain reports, at the price of one pass, whether escaping changes nothing.
func plain(path string) bool {
	start := true // of a segment
	for i := range len(path) {
		c := path[i]
		if c < 0x20 || c == '%' || c >= 0x7f || start && (c == '.' || c == '/') {
			return false
		}
		start = c == '/'
	}
	return !start
}

func escapeSegment(s string) string {
	switch s {
	case "":
		return emptySegment
	case ".", "..":
		return strings.ReplaceAll(s, ".", "%2E")
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == '%' || unicode.IsControl(r) || r == utf8.RuneError && n == 1 {
			for _, c := range []byte(s[i : i+n]) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// unescapeSegment is the reverse of escapeSegment; the "/" at the end of a folder's name stays.
func unescapeSegment(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	name, folder := strings.CutSuffix(s, "/")
	if name == emptySegment {
		name = ""
	}
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] == '%' && i+2 < len(name) {
			if c, err := strconv.ParseUint(name[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		b.WriteByte(name[i])
	}
	if folder {
		b.WriteByte('/')
	}
	return b.String()
}
