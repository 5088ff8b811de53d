package load

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// entry is an answer of secret/data.
type entry struct {
	Data struct {
		Data struct {
			V string `json:"v"`
		} `json:"data"`
		Metadata struct {
			Version int `json:"version"`
		} `json:"metadata"`
	} `json:"data"`
}

// ValueOf returns the value in the answer to a read of secret/data.
func ValueOf(body []byte) string {
	var e entry
	if err := json.Unmarshal(body, &e); err != nil {
		return "not JSON: " + err.Error()
	}
	return e.Data.Data.V
}

// Versions asks how many times the entry at a path below /v1/secret/data/ was written; 0 if never.
func Versions(ctx context.Context, client *Client, path string) (int, error) {
	answer, err := client.Do(ctx, http.MethodGet, strings.Replace(path, "/secret/data/", "/secret/metadata/", 1), nil)
	switch {
	case err != nil:
		return 0, err
	case answer.Status == http.StatusNotFound:
		return 0, nil
	case answer.Status != http.StatusOK:
		return 0, fmt.Errorf("%s: status %d: %.200s", path, answer.Status, answer.Body)
	}
	var meta struct {
		Data struct {
			CurrentVersion int `json:"current_version"`
		} `json:"data"`
	}
	err = json.Unmarshal(answer.Body, &meta)
	return meta.Data.CurrentVersion, err
}

// describe takes the message and "processed" out of an error's body.
func describe(body []byte) (message, processed string) {
	var e struct {
		Errors    []string `json:"errors"`
		Processed string   `json:"processed"`
	}
	if json.Unmarshal(body, &e) != nil {
		return fmt.Sprintf("%.100q", body), ""
	}
	return strings.Join(e.Errors, "; "), e.Processed
}
