package history

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/locum-ha/locum/test/load"
)

// ErrUnexpected: an answer that no server in any state should give.
var ErrUnexpected = errors.New("unexpected answer")

// Do sends one operation to a node, once, and records it. It returns what was read or made; ok says that
// there was an answer to the operation itself.
func (r *Recorder) Do(ctx context.Context, node *load.Client, client int, in Input) (out Output, ok bool, err error) {
	method, body := http.MethodGet, []byte(nil)
	switch in.Kind {
	case Write:
		method, body = http.MethodPost, fmt.Appendf(nil, `{"data":{"v":%q}}`, in.Value)
	case CAS:
		method, body = http.MethodPost, fmt.Appendf(nil, `{"options":{"cas":%d},"data":{"v":%q}}`, in.Expect, in.Value)
	}
	call := r.Begin(client, in)
	answer, err := node.Do(ctx, method, "/v1/secret/data/"+in.Key, body)
	switch {
	case errors.Is(err, load.ErrNotSent):
		call.Refused()
		return out, false, nil
	case err != nil:
		call.Unknown()
		return out, false, nil
	}
	return r.judge(call, answer)
}

// judge sorts an answer into answered, refused and unknown.
func (r *Recorder) judge(call *Call, answer load.Answer) (out Output, ok bool, err error) {
	var body struct {
		Data struct {
			Version  int `json:"version"` // of a write
			Metadata struct {
				Version int `json:"version"` // of a read
			} `json:"metadata"`
			Data struct {
				V string `json:"v"`
			} `json:"data"`
		} `json:"data"`
		Errors    []string `json:"errors"`
		Processed string   `json:"processed"`
	}
	_ = json.Unmarshal(answer.Body, &body)
	read := call.in.Kind == Read
	switch {
	case answer.Status == http.StatusOK && read:
		out = Output{Version: body.Data.Metadata.Version, Value: body.Data.Data.V}
	case answer.Status == http.StatusOK:
		out = Output{Version: body.Data.Version}
	case answer.Status == http.StatusNotFound && read:
	case answer.Status == http.StatusBadRequest && call.in.Kind == CAS && strings.Contains(strings.Join(body.Errors, " "), "check-and-set"):
		out = Output{Conflict: true}
	case answer.Status == http.StatusServiceUnavailable && body.Processed == "no",
		answer.Status == http.StatusTemporaryRedirect: // never after the request may have been processed
		call.Refused()
		return out, false, nil
	case answer.Status == http.StatusServiceUnavailable:
		call.Unknown()
		return out, false, nil
	default:
		call.Unknown()
		return out, false, fmt.Errorf("%w: %d %.200s", ErrUnexpected, answer.Status, answer.Body)
	}
	call.Answered(out)
	return out, true, nil
}
