package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
)

// readBody reads a request's body up to the limit.
func (rs responder) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	limit := rs.cfg.MaxBody
	if r.ContentLength > limit {
		return nil, &http.MaxBytesError{Limit: limit}
	}
	var buf bytes.Buffer
	if r.ContentLength > 0 {
		buf.Grow(int(r.ContentLength) + bytes.MinRead) // MinRead more, or the read of the end doubles the buffer
	}
	_, err := buf.ReadFrom(http.MaxBytesReader(w, r.Body, limit))
	var tooBig *http.MaxBytesError
	switch {
	case err == nil:
		return buf.Bytes(), nil
	case errors.As(err, &tooBig):
		return nil, err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &Error{http.StatusRequestTimeout, "the body came too slowly, and nothing was done: send it again", ProcessedNo}
	default:
		return nil, &Error{http.StatusBadRequest, "the body broke off before its end, and nothing was done: send it again", ProcessedNo}
	}
}

// decode reads the body as a JSON object into v. Unknown fields are left alone. An empty body is an error unless
// optional, and then v stays as it is.
func (rs responder) decode(w http.ResponseWriter, r *http.Request, v any, optional bool) error {
	body, err := rs.readBody(w, r)
	if err != nil {
		return err
	}
	return decodeObject(body, v, optional)
}

func decodeObject(body []byte, v any, optional bool) error {
	if len(bytes.TrimSpace(body)) == 0 {
		if optional {
			return nil
		}
		return Errorf(http.StatusBadRequest, "the body is empty: a JSON object is needed here")
	}
	if err := json.Unmarshal(body, v); err != nil {
		return malformed(err)
	}
	return nil
}

// malformed says in a sentence what is wrong with a JSON body.
func malformed(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	var known *Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &syntax):
		return Errorf(http.StatusBadRequest, "the body is not valid JSON: %s (at byte %d)", strings.TrimPrefix(syntax.Error(), "json: "), syntax.Offset)
	case errors.As(err, &kind) && kind.Field == "":
		return Errorf(http.StatusBadRequest, "the body is a JSON %s: a JSON object is needed here", kind.Value)
	case errors.As(err, &kind):
		return Errorf(http.StatusBadRequest, "the field %q is a JSON %s (at byte %d): %s is needed", kind.Field, kind.Value, kind.Offset, jsonName(kind.Type.Kind().String()))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return Errorf(http.StatusBadRequest, "the body is not valid JSON: it ends too early")
	default:
		return Errorf(http.StatusBadRequest, "the body cannot be understood: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
}

func jsonName(kind string) string {
	switch {
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"), strings.HasPrefix(kind, "float"):
		return "a number"
	case kind == "bool":
		return "true or false"
	case kind == "string":
		return "a string"
	case kind == "slice", kind == "array":
		return "a list"
	default:
		return "an object"
	}
}

// wrong is what the lenient types return: a sentence about one field's value.
func wrong(need string, got []byte) error {
	return Errorf(http.StatusBadRequest, "%s is needed instead of %s", need, shown(strings.Trim(string(got), `"`)))
}

// shown is a value in an error. What is longer than what is meant here could be a secret in the wrong place: it is not repeated.
func shown(text string) string {
	const most = 12 // bytes
	if len(text) > most {
		return fmt.Sprintf("a value of %d bytes", len(text))
	}
	return strconv.Quote(text)
}
