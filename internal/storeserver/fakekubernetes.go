package storeserver

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// FakeKubernetes is a fake of the Kubernetes API for Lease objects that enforces resourceVersion as the real one does: a PUT with
// another one than the object's is 409, and so is a POST of what is there. It asks for a token, and watches. Of pods it knows the
// labels, and takes merge patches.
type FakeKubernetes struct {
	URL string

	mu      sync.Mutex
	token   string
	version int
	oldest  int // version that can be watched from
	watches int
	leases  map[string]map[string]any    // by path
	pods    map[string]map[string]string // labels, by path
	denied  []string                     // verbs
	changed chan struct{}
}

// StartFakeKubernetes starts one that wants this token.
func StartFakeKubernetes(t T, token string) *FakeKubernetes {
	f := &FakeKubernetes{token: token, leases: map[string]map[string]any{}, pods: map[string]map[string]string{}, changed: make(chan struct{})}
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

// Deny has it answer 403 to these verbs from now on: "get", "create", "update", "watch", "patch".
func (f *FakeKubernetes) Deny(verbs ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.denied = verbs
}

// MakePod adds a pod.
func (f *FakeKubernetes) MakePod(namespace, name string, labels map[string]string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pods[fakePods+namespace+"/pods/"+name] = maps.Clone(labels)
}

// Labels are a pod's.
func (f *FakeKubernetes) Labels(namespace, name string) map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.pods[fakePods+namespace+"/pods/"+name])
}

const fakePods = "/api/v1/namespaces/"

const fakeLeases = "/apis/coordination.k8s.io/v1/namespaces/"

// ServeHTTP carries one request out.
func (f *FakeKubernetes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	verb := map[string]string{http.MethodGet: "get", http.MethodPost: "create", http.MethodPut: "update", http.MethodPatch: "patch"}[r.Method]
	if r.URL.Query().Get("watch") == "true" {
		verb = "watch"
	}
	f.mu.Lock()
	token, denied := f.token, slices.Contains(f.denied, verb)
	f.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+token {
		kubernetesFails(w, http.StatusUnauthorized, "Unauthorized")
		return
	}
	if denied {
		kubernetesFails(w, http.StatusForbidden, "forbidden: User cannot "+verb+" resource")
		return
	}
	if strings.HasPrefix(r.URL.Path, fakePods) {
		f.patch(w, r)
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

// patch merges labels into a pod's.
func (f *FakeKubernetes) patch(w http.ResponseWriter, r *http.Request) {
	var patch struct {
		Metadata struct{ Labels map[string]*string }
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	labels, ok := f.pods[r.URL.Path]
	switch {
	case !ok:
		kubernetesFails(w, http.StatusNotFound, "not found")
	case r.Method != http.MethodPatch || r.Header.Get("Content-Type") != "application/merge-patch+json":
		kubernetesFails(w, http.StatusUnsupportedMediaType, "unsupported")
	case json.NewDecoder(r.Body).Decode(&patch) != nil:
		kubernetesFails(w, http.StatusBadRequest, "bad patch")
	default:
		if labels == nil {
			labels = map[string]string{}
			f.pods[r.URL.Path] = labels
		}
		for name, value := range patch.Metadata.Labels {
			if value == nil {
				delete(labels, name)
			} else {
				labels[name] = *value
			}
		}
		json.NewEncoder(w).Encode(map[string]any{})
	}
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
