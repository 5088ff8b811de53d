package kv

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
)

// Subkeys returns the structure of a version without its values: every value that is not an object with members
// becomes null, and so does every one deeper than depth where depth > 0. Errors are Read's.
func (s *Store) Subkeys(ctx context.Context, path string, number uint64, depth int) (*Secret, error) {
	secret, err := s.Read(ctx, path, number)
	if err != nil {
		return nil, err
	}
	object, err := decodeObject(secret.Data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	strip(object, 1, depth)
	secret.Data, err = encodeObject(object)
	return secret, err
}

func strip(object map[string]any, depth, limit int) {
	for k, v := range object {
		inner, ok := v.(map[string]any)
		if ok && len(inner) > 0 && (limit <= 0 || depth < limit) {
			strip(inner, depth+1, limit)
		} else {
			object[k] = nil
		}
	}
}

// mergePatch applies a JSON merge patch (RFC 7396) to an object. Numbers keep their digits.
func mergePatch(target, patch Object) (Object, error) {
	to, err := decodeObject(target)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	p, err := decodeObject(patch)
	if err != nil {
		return nil, invalidf("data is not valid JSON")
	}
	return encodeObject(merge(to, p))
}

func merge(to, patch map[string]any) map[string]any {
	if to == nil {
		to = map[string]any{}
	}
	for k, v := range patch {
		switch v := v.(type) {
		case nil:
			delete(to, k)
		case map[string]any:
			inner, _ := to[k].(map[string]any)
			to[k] = merge(inner, v)
		default:
			to[k] = v
		}
	}
	return to
}

func decodeObject(data Object) (object map[string]any, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	err = d.Decode(&object)
	return object, err
}

func encodeObject(object map[string]any) (Object, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(object); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}
