package api

import (
	"bytes"
	"encoding/json"
	"strings"
)

// splitWrite finds the values of "data" and "options" in the body of a write, as they stand there, at a fraction of
// what decoding costs. It gives up (ok is false) on everything that is not plain: then encoding/json decides, and says
// what is wrong. What it accepts encoding/json accepts and understands alike, but for the inside of data, which
// whoever takes the data checks.
func splitWrite(body []byte) (data, options []byte, ok bool) {
	b := skipSpace(body)
	if len(b) == 0 || b[0] != '{' {
		return nil, nil, false
	}
	b = skipSpace(b[1:])
	for {
		name, rest, ok := cutName(b)
		if !ok {
			return nil, nil, false
		}
		size := valueSize(rest)
		if size == 0 {
			return nil, nil, false
		}
		value := rest[:size:size]
		switch {
		case string(name) == "data" && data == nil:
			data = value
		case string(name) == "options" && options == nil:
			options = value
		case strings.EqualFold(string(name), "data"), strings.EqualFold(string(name), "options"), !json.Valid(value):
			return nil, nil, false
		}
		b = skipSpace(rest[size:])
		if len(b) == 0 {
			return nil, nil, false
		}
		if b[0] == '}' {
			return data, options, data != nil && len(skipSpace(b[1:])) == 0
		}
		if b[0] != ',' {
			return nil, nil, false
		}
		b = skipSpace(b[1:])
	}
}

func skipSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t' || b[0] == '\r' || b[0] == '\n') {
		b = b[1:]
	}
	return b
}

// cutName takes a member's name and its colon off the front. Names with escapes or bytes beyond ASCII are not plain.
func cutName(b []byte) (name, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		return nil, nil, false
	}
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			name = b[1:i]
			b = skipSpace(b[i+1:])
			if len(b) == 0 || b[0] != ':' {
				return nil, nil, false
			}
			return name, skipSpace(b[1:]), true
		case c == '\\', c < 0x20, c >= 0x7f:
			return nil, nil, false
		}
	}
	return nil, nil, false
}

// valueSize is the size of the value at the front, if it is a value; 0 if it does not end.
func valueSize(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	switch b[0] {
	case '"':
		return stringSize(b)
	case '{', '[':
	default:
		return max(0, bytes.IndexAny(b, ",}] \t\r\n"))
	}
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			size := stringSize(b[i:])
			if size == 0 {
				return 0
			}
			i += size - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return 0
}

// stringSize is the size of the string at the front with its quotes; 0 if it does not end.
func stringSize(b []byte) int {
	for i := 1; i < len(b); {
		quote := bytes.IndexByte(b[i:], '"')
		if quote < 0 {
			return 0
		}
		end := i + quote
		escapes := 0 // backslashes right before the quote: an odd number escapes it
		for end-1-escapes >= i && b[end-1-escapes] == '\\' {
			escapes++
		}
		i = end + 1
		if escapes%2 == 0 {
			return i
		}
	}
	return 0
}
