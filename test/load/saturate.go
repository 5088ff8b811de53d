package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Request makes the wire form of the i-th request of a connection, appending to b.
type Request func(b []byte, conn, i int) []byte

// GET is a request without variation.
func GET(path, token string) Request {
	wire := "GET " + path + " HTTP/1.1\r\nHost: bench\r\n"
	if token != "" {
		wire += "X-Vault-Token: " + token + "\r\n"
	}
	return func(b []byte, _, _ int) []byte { return append(append(b, wire...), "\r\n"...) }
}

// Saturation is what Saturate measured.
type Saturation struct {
	Requests  int
	Failed    int // answers that are not a 2xx
	Elapsed   time.Duration
	latencies []time.Duration
}

// Rate is in requests per second, failed ones left out.
func (s *Saturation) Rate() float64 { return float64(s.Requests-s.Failed) / s.Elapsed.Seconds() }

// Quantile returns a quantile (0 to 1) of the latencies.
func (s *Saturation) Quantile(q float64) time.Duration {
	if len(s.latencies) == 0 {
		return 0
	}
	return s.latencies[min(len(s.latencies)-1, int(q*float64(len(s.latencies))))]
}

// Saturate keeps so many connections busy for a time, one request at a time on each, the connections spread
// over the addresses.
func Saturate(addresses []string, conns int, limit time.Duration, request Request) (*Saturation, error) {
	each := make([]Saturation, conns)
	errs := make([]error, conns)
	var ready, wg sync.WaitGroup
	begin := make(chan struct{})
	ready.Add(conns)
	for i := range conns {
		wg.Go(func() {
			conn, err := net.Dial("tcp", addresses[i%len(addresses)])
			ready.Done()
			if err != nil {
				errs[i] = err
				return
			}
			defer conn.Close()
			<-begin
			errs[i] = each[i].loop(conn, i, limit, request)
		})
	}
	ready.Wait()
	start := time.Now()
	close(begin)
	wg.Wait()
	all := &Saturation{Elapsed: time.Since(start)}
	for i := range each {
		all.Requests += each[i].Requests
		all.Failed += each[i].Failed
		all.latencies = append(all.latencies, each[i].latencies...)
	}
	slices.Sort(all.latencies)
	return all, errors.Join(errs...)
}

func (s *Saturation) loop(conn net.Conn, number int, limit time.Duration, request Request) error {
	r := bufio.NewReaderSize(conn, 8192)
	s.latencies = make([]time.Duration, 0, 1<<14)
	var buffer []byte
	end := time.Now().Add(limit)
	_ = conn.SetDeadline(end.Add(30 * time.Second))
	for i := 0; ; i++ {
		buffer = request(buffer[:0], number, i)
		start := time.Now()
		if start.After(end) {
			return nil
		}
		if _, err := conn.Write(buffer); err != nil {
			return err
		}
		status, err := skim(r)
		if err != nil {
			return fmt.Errorf("request %d of connection %d: %w", i, number, err)
		}
		s.latencies = append(s.latencies, time.Since(start))
		s.Requests++
		if status/100 != 2 {
			s.Failed++
		}
	}
}

// skim reads one answer and keeps its status: the generator shares the processors with what it measures.
func skim(r *bufio.Reader) (status int, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 12 {
		return 0, fmt.Errorf("not an answer: %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, err
	}
	length, chunked := 0, false
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(line) <= 2 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, err
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		}
	}
	if !chunked {
		_, err = r.Discard(length)
		return status, err
	}
	return status, skipChunks(r)
}

func skipChunks(r *bufio.Reader) error {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		size, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		if err != nil {
			return err
		}
		if _, err := r.Discard(int(size) + 2); err != nil {
			return err
		}
		if size == 0 {
			return nil
		}
	}
}
