package storeserver

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/xml"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// FakeS3 is a fake of S3 that enforces what conditional writes promise, as strictly as the service says it may: If-None-Match
// and If-Match are checked in one step with the write (412), a write that meets a conditional one of the same object under
// way is refused (409), If-Match on what is not there is 404. It verifies no signatures.
type FakeS3 struct {
	URL    string
	Bucket string

	mu       sync.Mutex
	objects  map[string]fakeObject
	writing  map[string]int           // conditional writes under way
	requests map[string]int           // by kind
	delay    time.Duration            // of a write between its beginning and its check
	refuse   func(*http.Request) bool // answers 503 instead
	status   int                      // answered to everything, with code; 0: not
	code     string
	kept     bool     // no object may be deleted
	ignored  []string // conditions
}

type fakeObject struct {
	data []byte
	etag string
}

// StartFakeS3 starts one with an empty bucket.
func StartFakeS3(t T) *FakeS3 {
	f := &FakeS3{Bucket: "locum-test", objects: map[string]fakeObject{}, writing: map[string]int{}, requests: map[string]int{}}
	server := httptest.NewServer(f)
	f.URL = server.URL
	t.Cleanup(server.Close)
	return f
}

// Requests counts the requests of one kind so far: "get", "put", "swap", "list", "delete"; and the swaps that were refused: "409",
// "412".
func (f *FakeS3) Requests(kind string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests[kind]
}

// Objects lists the names below a prefix.
func (f *FakeS3) Objects(prefix string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.names(prefix)
}

func (f *FakeS3) names(prefix string) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(f.objects)), func(name string) bool { return !strings.HasPrefix(name, prefix) })
}

// SlowWrites makes every write take this long, so that swaps meet each other.
func (f *FakeS3) SlowWrites(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delay = d
}

// IgnoreConditions makes it a service that does not know these conditions of writes: "If-Match", "If-None-Match".
func (f *FakeS3) IgnoreConditions(headers ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ignored = headers
}

// Refuse answers 503 to the requests that which is true of; nil: to none.
func (f *FakeS3) Refuse(which func(*http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse = which
}

// Answer has it answer this to everything, as where a right is missing; 0: no more.
func (f *FakeS3) Answer(status int, code string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status, f.code = status, code
}

// RefuseDeletes has it delete nothing, for want of the right to it: that is answered object by object, with 200 in all.
func (f *FakeS3) RefuseDeletes() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept = true
}

func (f *FakeS3) count(kind string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests[kind]++
}

// ServeHTTP answers in the path style: /bucket/key.
func (f *FakeS3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	refuse, status, code := f.refuse, f.status, f.code
	f.mu.Unlock()
	if status != 0 {
		fail(w, status, code)
		return
	}
	if refuse != nil && refuse(r) {
		fail(w, http.StatusServiceUnavailable, "SlowDown")
		return
	}
	path, err := url.PathUnescape(strings.TrimPrefix(r.URL.EscapedPath(), "/"))
	bucket, key, _ := strings.Cut(path, "/")
	switch {
	case err != nil:
		fail(w, http.StatusBadRequest, "InvalidURI")
	case bucket != f.Bucket:
		fail(w, http.StatusNotFound, "NoSuchBucket")
	case r.Method == http.MethodGet && key == "":
		f.list(w, r.URL.Query())
	case r.Method == http.MethodPost && r.URL.Query().Has("delete"):
		f.remove(w, r)
	case r.Method == http.MethodGet:
		f.get(w, r, key)
	case r.Method == http.MethodPut:
		f.put(w, r, key)
	default:
		fail(w, http.StatusNotImplemented, "NotImplemented")
	}
}

func fail(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	io.WriteString(w, "<Error><Code>"+code+"</Code><Message>"+code+"</Message></Error>")
}

func (f *FakeS3) get(w http.ResponseWriter, r *http.Request, key string) {
	f.count("get")
	f.mu.Lock()
	o, ok := f.objects[key]
	f.mu.Unlock()
	switch {
	case !ok:
		fail(w, http.StatusNotFound, "NoSuchKey")
	case r.Header.Get("If-None-Match") == o.etag:
		w.WriteHeader(http.StatusNotModified)
	default:
		w.Header().Set("ETag", o.etag)
		w.Write(o.data)
	}
}

func (f *FakeS3) put(w http.ResponseWriter, r *http.Request, key string) {
	f.mu.Lock()
	for _, header := range f.ignored {
		r.Header.Del(header)
	}
	f.mu.Unlock()
	match, none := r.Header.Get("If-Match"), r.Header.Get("If-None-Match")
	conditional := match != "" || none != ""
	if conditional {
		f.count("swap")
	} else {
		f.count("put")
	}
	if !f.begin(key, conditional) {
		f.count("409")
		fail(w, http.StatusConflict, "ConditionalRequestConflict")
		return
	}
	data, err := io.ReadAll(r.Body)
	f.pause()
	f.mu.Lock()
	defer f.mu.Unlock()
	if conditional {
		f.writing[key]--
	}
	o, exists := f.objects[key]
	switch {
	case err != nil:
		return // the client has gone away
	case match != "" && !exists:
		fail(w, http.StatusNotFound, "NoSuchKey")
	case match != "" && match != o.etag, none == "*" && exists:
		f.requests["412"]++
		fail(w, http.StatusPreconditionFailed, "PreconditionFailed")
	default:
		sum := md5.Sum(data)
		o = fakeObject{data, `"` + hex.EncodeToString(sum[:]) + `"`}
		f.objects[key] = o
		w.Header().Set("ETag", o.etag)
	}
}

// begin reports whether a write may begin: beside a conditional one of the same object none may.
func (f *FakeS3) begin(key string, conditional bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.writing[key] > 0 {
		return false
	}
	if conditional {
		f.writing[key]++
	}
	return true
}

func (f *FakeS3) pause() {
	f.mu.Lock()
	d := f.delay
	f.mu.Unlock()
	if d > 0 {
		timer := time.NewTimer(d)
		<-timer.C
	}
}

type fakeListing struct {
	XMLName     xml.Name `xml:"ListBucketResult"`
	IsTruncated bool
	Contents    []fakeListed
}

type fakeListed struct{ Key string }

func (f *FakeS3) list(w http.ResponseWriter, q url.Values) {
	f.count("list")
	f.mu.Lock()
	names := f.names(q.Get("prefix"))
	f.mu.Unlock()
	var l fakeListing
	for _, name := range names {
		if name <= q.Get("start-after") {
			continue
		}
		if len(l.Contents) == 1000 {
			l.IsTruncated = true
			break
		}
		l.Contents = append(l.Contents, fakeListed{name})
	}
	w.Header().Set("Content-Type", "application/xml")
	xml.NewEncoder(w).Encode(l)
}

func (f *FakeS3) remove(w http.ResponseWriter, r *http.Request) {
	f.count("delete")
	var d struct{ Object []fakeListed }
	if err := xml.NewDecoder(r.Body).Decode(&d); err != nil || len(d.Object) > 1000 {
		fail(w, http.StatusBadRequest, "MalformedXML")
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	io.WriteString(w, "<DeleteResult>")
	for _, o := range d.Object {
		if f.kept {
			io.WriteString(w, "<Error><Key>"+o.Key+"</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
			continue
		}
		delete(f.objects, o.Key)
	}
	io.WriteString(w, "</DeleteResult>")
}
