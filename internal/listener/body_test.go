package listener

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// trickle is a body that gives some bytes each time.
type trickle struct {
	every time.Duration
	bytes int
	left  int
	stop  <-chan struct{} // waits here at the end, if it is not nil
}

func (b *trickle) Read(p []byte) (int, error) {
	if b.left == 0 {
		if b.stop != nil {
			<-b.stop
		}
		return 0, io.EOF
	}
	<-time.After(b.every)
	n := min(b.bytes, b.left, len(p))
	b.left -= n
	return copy(p, strings.Repeat("x", n)), nil
}

// absorb reads the body, says how that ended, and answers as the API does.
func absorb(ended chan<- error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		ended <- err
		if errors.Is(err, os.ErrDeadlineExceeded) {
			w.WriteHeader(http.StatusRequestTimeout)
		}
	}
}

// With 1000 bytes a second, judged once a period.
func bodies(t *testing.T, period time.Duration, change ...func(*Config)) (*Listener, chan error) {
	ended := make(chan error, 1)
	l := opened(t, absorb(ended), append([]func(*Config){func(c *Config) { c.MinBodyRate = 1000 }}, change...)...)
	l.bodyPeriod = period
	return l.run(t), ended
}

// A body that comes drop by drop ends; one that comes steadily may take its time (P12).
func TestSlowBody(t *testing.T) {
	for name, choose := range map[string]func(*http.Protocols){"HTTP/1.1": http1, "HTTP/2": h2c} {
		t.Run(name, func(t *testing.T) {
			steady, fine := bodies(t, time.Second) // long: a machine that stands still meanwhile makes no body slow
			l, ended := bodies(t, 200*time.Millisecond)
			post := func(l *Listener, body io.Reader) (*http.Response, error) {
				req, err := http.NewRequest("POST", "http://"+l.Addr().String(), body)
				if err != nil {
					t.Fatal(err)
				}
				return client(t, nil, choose).Do(req)
			}
			resp, err := post(steady, &trickle{every: 50 * time.Millisecond, bytes: 500, left: 25_000}) // two periods and a half
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if err := <-fine; err != nil || resp.StatusCode != 200 {
				t.Errorf("a steady body: %d, %v", resp.StatusCode, err)
			}
			stop := make(chan struct{})
			defer close(stop)
			for what, body := range map[string]*trickle{
				"drop by drop": {every: 20 * time.Millisecond, bytes: 1, left: 1000, stop: stop},
				"silent":       {stop: stop},
				"stalled":      {every: time.Millisecond, bytes: 5000, left: 5000, stop: stop},
			} {
				resp, err := post(l, body)
				if err == nil {
					resp.Body.Close()
					if resp.StatusCode != http.StatusRequestTimeout {
						t.Errorf("%s: %d", what, resp.StatusCode)
					}
				}
				if err := <-ended; !errors.Is(err, ErrSlow) || !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

// The whole body's limit, where one is set.
func TestReadTimeout(t *testing.T) {
	l, ended := bodies(t, 200*time.Millisecond, func(c *Config) { c.ReadTimeout = 300 * time.Millisecond })
	_, err := client(t, nil, http1).Post("http://"+l.Addr().String(), "", &trickle{every: 10 * time.Millisecond, bytes: 1000, left: 1 << 30})
	_ = err // an answer or a broken connection, as it happens
	if err := <-ended; !errors.Is(err, ErrSlow) {
		t.Error(err)
	}
}

// Only the time that somebody waits for the client counts: not that in which a request is held, or is worked on after its
// body was read; nor does http_read_timeout's end cancel it then.
func TestBodyThatNobodyReads(t *testing.T) {
	l := opened(t, func(w http.ResponseWriter, r *http.Request) {
		<-time.After(time.Second)
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error("held, then read:", err)
		}
		select {
		case <-r.Context().Done():
			t.Error("cancelled:", r.Context().Err())
		case <-time.After(time.Second):
		}
	}, func(c *Config) { c.MinBodyRate, c.ReadTimeout = 1000, 1500*time.Millisecond })
	l.bodyPeriod = 100 * time.Millisecond
	l.run(t)
	resp, err := client(t, nil, http1).Post("http://"+l.Addr().String(), "", strings.NewReader(strings.Repeat("x", 100_000)))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

// A body that the handler does not want is not waited for long either, and the answer goes out.
func TestUnwantedBody(t *testing.T) {
	l := opened(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	l.bodyLinger = 100 * time.Millisecond
	l.run(t)
	c := l.dial(t)
	send(t, c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
	if code, _ := answer(t, c); code != http.StatusForbidden {
		t.Error(code)
	}
	if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("still waits for the rest")
	}
}

// The connection is as good as new after requests with bodies.
func TestBodiesOneAfterTheOther(t *testing.T) {
	l, ended := bodies(t, 200*time.Millisecond)
	c := client(t, nil, http1)
	for range 5 {
		resp, err := c.Post("http://"+l.Addr().String(), "", strings.NewReader("some body"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		<-time.After(l.bodyPeriod / 2)
	}
}
