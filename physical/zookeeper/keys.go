package zookeeper

import (
	"strconv"
	"strings"
)

// A node's name may hold most of Unicode, but not all, and not "." alone. So each byte of a name that is not printable
// ASCII is stored as "%" and two hex digits, and "%" itself too; and each name begins with a sign that says what it is.

const (
	folderSign = "+"
	entrySign  = "="
	hexDigits  = "0123456789ABCDEF"
)

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

// nodes returns the nodes of the folders that a key lies in, the outermost first, and the node of its entry.
func (s *Store) nodes(key string) (folders []string, entry string) {
	segments := strings.Split(key, "/")
	path := make([]byte, 0, len(s.entries)+len(key)+2*len(segments)+16)
	path = append(path, s.entries...)
	ends := make([]int, 0, 8)
	for i, segment := range segments {
		sign := folderSign
		if i == len(segments)-1 {
			sign = entrySign
		}
		path = append(append(append(path, '/'), sign...), escape(segment)...)
		ends = append(ends, len(path))
	}
	entry = string(path)
	folders = make([]string, len(ends)-1)
	for i := range folders {
		folders[i] = entry[:ends[i]]
	}
	return folders, entry
}

// folder returns the node of a prefix of List.
func (s *Store) folder(prefix string) string {
	folders, _ := s.nodes(prefix)
	if len(folders) == 0 {
		return s.entries
	}
	return folders[len(folders)-1]
}
