package consul

import (
	"strconv"
	"strings"
)

// Consul's agent refuses a URL with a character that its version of Go holds to be unprintable. So each byte of a key that
// is not printable ASCII is stored as "%" and two hex digits, and "%" itself too. Folders stay folders.

const hexDigits = "0123456789ABCDEF"

// plain reports whether a byte is stored as it is.
func plain(c byte) bool { return c >= ' ' && c <= '~' && c != '%' }

func escape(key string) string {
	for i := range len(key) {
		if !plain(key[i]) {
			return escapeFrom(key, i)
		}
	}
	return key
}

func escapeFrom(key string, first int) string {
	var b strings.Builder
	b.WriteString(key[:first])
	for i := first; i < len(key); i++ {
		if c := key[i]; plain(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&15]})
		}
	}
	return b.String()
}

// unescape undoes escape; what is not of its making stays as it is.
func unescape(stored string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(stored, "%")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		if len(after) >= 2 {
			if c, err := strconv.ParseUint(after[:2], 16, 8); err == nil {
				b.WriteByte(byte(c))
				stored = after[2:]
				continue
			}
		}
		b.WriteByte('%')
		stored = after
	}
}
