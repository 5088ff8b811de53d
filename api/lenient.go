package api

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// Vault takes a number also as a string, a list also as one string with commas, a duration as seconds or with a unit; its
// own command-line client relies on it. These types do so too.

// number is an integer, or a string that holds one.
type number struct {
	value int64
	set   bool
}

func (n *number) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		return nil
	}
	v, err := strconv.ParseInt(strings.Trim(string(b), `"`), 10, 64)
	if err != nil {
		return wrong("a whole number", b)
	}
	n.value, n.set = v, true
	return nil
}

// boolean is a bool, or a string that holds one.
type boolean struct {
	value bool
	set   bool
}

func (f *boolean) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		return nil
	}
	v, err := strconv.ParseBool(strings.Trim(string(b), `"`))
	if err != nil {
		return wrong("true or false", b)
	}
	f.value, f.set = v, true
	return nil
}

// versions is a list of version numbers: [1,2], ["1","2"], "1,2" or 1.
type versions []uint64

func (v *versions) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		return nil
	}
	items := []json.RawMessage{b}
	if b[0] == '[' {
		items = nil
		if err := json.Unmarshal(b, &items); err != nil {
			return err
		}
	}
	for _, item := range items {
		for part := range strings.SplitSeq(strings.Trim(string(item), `"`), ",") {
			n, err := strconv.ParseUint(strings.TrimSpace(part), 10, 64)
			if err != nil || n == 0 {
				return wrong("a list of version numbers from 1 on", b)
			}
			*v = append(*v, n)
		}
	}
	return nil
}

// duration is a number of seconds, or a string: seconds, or a number with a unit.
type duration struct {
	value time.Duration
	set   bool
}

func (d *duration) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		return nil
	}
	text := strings.Trim(string(b), `"`)
	v, err := parseDuration(text)
	if err != nil {
		return wrong(`a duration such as "30s"`, b)
	}
	d.value, d.set = v, true
	return nil
}

func parseDuration(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	if seconds, err := strconv.ParseInt(text, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseInt(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(text)
}

// names is a list of strings, or one string with commas.
type names []string

func (l *names) UnmarshalJSON(b []byte) error {
	switch b[0] {
	case 'n':
		return nil
	case '[':
		return json.Unmarshal(b, (*[]string)(l))
	}
	var text string
	if json.Unmarshal(b, &text) != nil {
		return wrong("a list of strings", b)
	}
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			*l = append(*l, part)
		}
	}
	return nil
}

// pairs is an object of strings; numbers, true and false are taken as they are written.
type pairs map[string]string

func (p *pairs) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		return nil
	}
	var raw map[string]json.RawMessage
	if json.Unmarshal(b, &raw) != nil {
		return wrong("an object of strings", b)
	}
	*p = make(pairs, len(raw))
	for key, value := range raw {
		text := string(value)
		switch text[0] {
		case '"':
			if err := json.Unmarshal(value, &text); err != nil {
				return err
			}
		case '{', '[', 'n':
			return wrong("a string", value)
		}
		(*p)[key] = text
	}
	return nil
}
