package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A policy is written in the part of HCL that policies need, or in JSON. Both become the same tree, with everything that
// was written in it: a rule given twice is seen twice, and nothing is dropped that could have been a "deny".

// maxDepth bounds how deep lists and objects may be nested.
const maxDepth = 16

type kind uint8

const (
	kindText   kind = iota // a string
	kindScalar             // a number, true, false or null, as written
	kindList
	kindObject
)

// value is one value, with where it begins.
type value struct {
	kind   kind
	text   string
	list   []value
	object []item
	line   int
}

// item is `keys… = value` or `keys… { … }`.
type item struct {
	keys  []string
	value value
	line  int
}

// parseTree reads a policy, whichever way it is written.
func parseTree(text string) ([]item, error) {
	if !utf8.ValidString(text) {
		return nil, invalidf("the policy is not valid UTF-8 text")
	}
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		return parseJSON(text)
	}
	p := &parser{text: text, line: 1}
	items, err := p.items(0, false)
	if err != nil {
		return nil, err
	}
	return items, nil
}

// parser reads HCL.
type parser struct {
	text string
	pos  int
	line int
}

func (p *parser) fault(format string, args ...any) error {
	args = append([]any{p.line}, args...)
	return invalidf("line %d: "+format, args...)
}

// space skips spaces, line ends and comments.
func (p *parser) space() error {
	for p.pos < len(p.text) {
		rest := p.text[p.pos:]
		switch {
		case rest[0] == '\n':
			p.line++
			p.pos++
		case rest[0] == ' ', rest[0] == '\t', rest[0] == '\r', strings.HasPrefix(rest, "\ufeff"):
			_, n := utf8.DecodeRuneInString(rest)
			p.pos += n
		case rest[0] == '#', strings.HasPrefix(rest, "//"):
			end := strings.IndexByte(rest, '\n')
			if end < 0 {
				end = len(rest)
			}
			p.pos += end
		case strings.HasPrefix(rest, "/*"):
			end := strings.Index(rest[2:], "*/")
			if end < 0 {
				return p.fault("a comment that begins with /* does not end")
			}
			p.line += strings.Count(rest[:end+4], "\n")
			p.pos += end + 4
		default:
			return nil
		}
	}
	return nil
}

// peek gives the next byte that counts; 0 at the end.
func (p *parser) peek() (byte, error) {
	if err := p.space(); err != nil || p.pos >= len(p.text) {
		return 0, err
	}
	return p.text[p.pos], nil
}

// items reads until the end, or the brace that closes the object.
func (p *parser) items(depth int, inside bool) ([]item, error) {
	var items []item
	for {
		c, err := p.peek()
		switch {
		case err != nil:
			return nil, err
		case c == 0 && !inside:
			return items, nil
		case c == 0:
			return nil, p.fault("a \"{\" is not closed")
		case c == '}' && inside:
			p.pos++
			return items, nil
		case c == ',' && inside && len(items) > 0:
			p.pos++
			continue
		}
		it, err := p.item(depth)
		if err != nil {
			return nil, err
		}
		items = append(items, it)
	}
}

func (p *parser) item(depth int) (item, error) {
	it := item{line: p.line}
	for {
		c, err := p.peek()
		if err != nil {
			return it, err
		}
		switch {
		case c == '"':
			key, err := p.quoted()
			if err != nil {
				return it, err
			}
			it.keys = append(it.keys, key)
			continue
		case identifier(c):
			it.keys = append(it.keys, p.word())
			continue
		}
		if len(it.keys) == 0 {
			return it, p.fault("a name is needed here, such as path \"secret/data/*\" { … }")
		}
		if c == '=' || c == ':' {
			p.pos++
			it.value, err = p.value(depth)
			return it, err
		}
		if c == '{' {
			it.value, err = p.value(depth)
			return it, err
		}
		return it, p.fault("%q is followed by neither \"=\" nor \"{\"", it.keys[len(it.keys)-1])
	}
}

func (p *parser) value(depth int) (value, error) {
	c, err := p.peek()
	v := value{line: p.line}
	if err != nil {
		return v, err
	}
	if depth >= maxDepth {
		return v, p.fault("nested more than %d deep", maxDepth)
	}
	switch {
	case c == '"':
		v.text, err = p.quoted()
	case c == '[':
		v.kind = kindList
		v.list, err = p.list(depth + 1)
	case c == '{':
		p.pos++
		v.kind = kindObject
		v.object, err = p.items(depth+1, true)
	case c == '<':
		err = p.fault("a text with << is not supported here: write it in quotes")
	case identifier(c) || c == '-' || c == '+':
		v.kind, v.text = kindScalar, p.word()
	default:
		err = p.fault("a value is needed here")
	}
	return v, err
}

func (p *parser) list(depth int) ([]value, error) {
	p.pos++
	list := []value{}
	for {
		c, err := p.peek()
		switch {
		case err != nil:
			return nil, err
		case c == ']':
			p.pos++
			return list, nil
		case c == 0:
			return nil, p.fault("a \"[\" is not closed")
		}
		v, err := p.value(depth)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		if c, err = p.peek(); err != nil {
			return nil, err
		}
		switch c {
		case ',':
			p.pos++
		case ']':
		default:
			return nil, p.fault("the items of a list are separated by commas")
		}
	}
}

// quoted reads a string in double quotes. What HCL would put in for ${…} stays as it is: policies have no variables.
func (p *parser) quoted() (string, error) {
	begin := p.pos
	for i := p.pos + 1; i < len(p.text); i++ {
		switch p.text[i] {
		case '\n':
			return "", p.fault("a quote is not closed on its line")
		case '\\':
			i++
		case '"':
			p.pos = i + 1
			raw := p.text[begin:p.pos]
			if !strings.Contains(raw, `\`) {
				return raw[1 : len(raw)-1], nil
			}
			var s string
			if json.Unmarshal([]byte(raw), &s) != nil {
				return "", p.fault("the escape in %.60s is not one of \\\" \\\\ \\n \\t \\uXXXX", raw)
			}
			return s, nil
		}
	}
	return "", p.fault("a quote is not closed")
}

// word reads a name or a number.
func (p *parser) word() string {
	begin := p.pos
	p.pos++
	for p.pos < len(p.text) && (identifier(p.text[p.pos]) || p.text[p.pos] == '-' || p.text[p.pos] == '.' || p.text[p.pos] == '+') {
		p.pos++
	}
	return p.text[begin:p.pos]
}

func identifier(c byte) bool {
	return c == '_' || c < utf8.RuneSelf && (unicode.IsLetter(rune(c)) || unicode.IsDigit(rune(c)))
}

// parseJSON reads a policy that is a JSON object.
func parseJSON(text string) ([]item, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	counted, lines := int64(0), 1
	line := func() int {
		at := d.InputOffset()
		lines += strings.Count(text[counted:at], "\n")
		counted = at
		return lines
	}
	v, err := jsonValue(d, 0, line)
	if err == nil {
		if _, err = d.Token(); err == io.EOF {
			return v.object, nil
		}
		if err == nil {
			return nil, invalidf("line %d: something follows the JSON object", line())
		}
	}
	if errors.Is(err, ErrInvalid) {
		return nil, err
	}
	return nil, invalidf("line %d: the policy is not valid JSON: %s", line(), strings.TrimPrefix(err.Error(), "json: "))
}

func jsonValue(d *json.Decoder, depth int, line func() int) (value, error) {
	if depth > maxDepth {
		return value{}, invalidf("line %d: nested more than %d deep", line(), maxDepth)
	}
	t, err := d.Token()
	if err != nil {
		return value{}, unexpected(err)
	}
	v := value{line: line()}
	switch t := t.(type) {
	case string:
		v.text = t
	case json.Delim:
		if t == '[' {
			v.kind = kindList
			for d.More() {
				element, err := jsonValue(d, depth+1, line)
				if err != nil {
					return v, err
				}
				v.list = append(v.list, element)
			}
		} else {
			v.kind = kindObject
			for d.More() {
				key, err := d.Token()
				if err != nil {
					return v, unexpected(err)
				}
				it := item{keys: []string{key.(string)}, line: line()} // keys of objects are strings, or Token fails
				if it.value, err = jsonValue(d, depth+1, line); err != nil {
					return v, err
				}
				v.object = append(v.object, it)
			}
		}
		if _, err := d.Token(); err != nil {
			return v, unexpected(err)
		}
	default:
		v.kind = kindScalar
		var b bytes.Buffer
		_ = json.NewEncoder(&b).Encode(t) // a number, bool or null always can be
		v.text = strings.TrimSpace(b.String())
	}
	return v, nil
}

// unexpected makes an end in the middle an error that says so.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
