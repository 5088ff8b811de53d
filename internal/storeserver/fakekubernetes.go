package storeserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
)

// FakeKubernetes is a fake of the Kubernetes API for Lease objects that enforces resourceVersion as the real one does: a PUT with
// another one than the object's is 409, and so is a POST of what is there. It asks for a token, and watches.
type FakeKubernetes struct {
	URL string

	mu      sync.Mutex
	token   string
	version int
	leases  map[string]map[string]any // by path
	oldest  int                       // version that can be watched from
	watches int
	changed chan struct{}
}

// StartFakeKubernetes starts one that wants this token.
func StartFakeKubernetes(t T, token string) *FakeKubernetes {
	f := &FakeKubernetes{token: token, leases: map[string]map[string]any{}, changed: make(chan struct{})}
	server := httptest.NewServer(f)
	f.URL = server.URL
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return f
}

// SetToken has it want another token from now on, as when a service account's is replaced.
func (f *FakeKubernetes) SetToken(token string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.token = token
}

// Forget has it know no more of what was until now: watches from there end with an error, as after some minutes.
func (f *FakeKubernetes) Forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.oldest = f.version + 1
}

// Watches counts the watches that were begun.
func (f *FakeKubernetes) Watches() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.watches
}

const fakeLeases = "/apis/coordination.k8s.io/v1/namespaces/"

// ServeHTTP carries one request out.
func (f *FakeKubernetes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	token := f.token
	f.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+token {
		kubernetesFails(w, http.StatusUnauthorized, "Unauthorized")
		return
	}
	if !strings.HasPrefix(r.URL.Path, fakeLeases) || !strings.Contains(r.URL.Path, "/leases") {
		kubernetesFails(w, http.StatusNotFound, "no such resource")
		return
	}
	switch {
	case r.Method == http.MethodGet && r.URL.Query().Get("watch") == "true":
		f.watch(w, r)
	case r.Method == http.MethodGet:
		f.get(w, r)
	case r.Method == http.MethodPost, r.Method == http.MethodPut:
		f.write(w, r)
	default:
		kubernetesFails(w, http.StatusMethodNotAllowed, r.Method)
	}
}

func kubernetesFails(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "status": "Failure", "message": message, "code": code})
}

func (f *FakeKubernetes) get(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o, ok := f.leases[r.URL.Path]
	if !ok {
		kubernetesFails(w, http.StatusNotFound, "not found")
		return
	}
	json.NewEncoder(w).Encode(o)
}

func (f *FakeKubernetes) write(w http.ResponseWriter, r *http.Request) {
	var o map[string]any
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
		kubernetesFails(w, http.StatusBadRequest, err.Error())
		return
	}
	meta, ok := o["metadata"].(map[string]any)
	if !ok {
		kubernetesFails(w, http.StatusUnprocessableEntity, "no metadata")
		return
	}
	path := r.URL.Path
	if r.Method == http.MethodPost {
		path += "/" + fmt.Sprint(meta["name"])
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now, exists := f.leases[path]
	switch {
	case r.Method == http.MethodPost && exists:
		kubernetesFails(w, http.StatusConflict, "already exists")
		return
	case r.Method == http.MethodPost && meta["resourceVersion"] != nil:
		kubernetesFails(w, http.StatusBadRequest, "resourceVersion should not be set on objects to be created")
		return
	case r.Method == http.MethodPut && !exists:
		kubernetesFails(w, http.StatusNotFound, "not found")
		return
	case r.Method == http.MethodPut && meta["resourceVersion"] != now["metadata"].(map[string]any)["resourceVersion"]:
		kubernetesFails(w, http.StatusConflict, "the object has been modified")
		return
	}
	f.version++
	meta["resourceVersion"] = strconv.Itoa(f.version)
	f.leases[path] = o
	close(f.changed)
	f.changed = make(chan struct{})
	json.NewEncoder(w).Encode(o)
}

// watch sends the object whenever it is newer than what was sent.
func (f *FakeKubernetes) watch(w http.ResponseWriter, r *http.Request) {
	name, _ := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	seen, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	f.mu.Lock()
	f.watches++
	expired := r.URL.Query().Has("resourceVersion") && seen < f.oldest
	f.mu.Unlock()
	if expired {
		status := map[string]any{"kind": "Status", "status": "Failure", "reason": "Expired", "message": "too old resource version", "code": http.StatusGone}
		json.NewEncoder(w).Encode(map[string]any{"type": "ERROR", "object": status})
		return
	}
	w.(http.Flusher).Flush()
	for {
		f.mu.Lock()
		changed := f.changed
		o, ok := f.leases[r.URL.Path+"/"+name]
		version := 0
		var line []byte
		if ok {
			version, _ = strconv.Atoi(o["metadata"].(map[string]any)["resourceVersion"].(string))
			line, _ = json.Marshal(map[string]any{"type": "MODIFIED", "object": o})
		}
		f.mu.Unlock()
		if ok && version > seen {
			seen = version
			if _, err := w.Write(append(line, '\n')); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}
