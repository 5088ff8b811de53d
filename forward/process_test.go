package forward

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Benchmarks with one process per node, as they run in earnest: this test binary again, in a role.
//
//	go test -run - -bench Processes ./forward

const roleEnv, certEnv = "FORWARD_TEST_ROLE", "FORWARD_TEST_CERT"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		runRole(role)
		return
	}
	os.Exit(m.Run())
}

// runRole serves until standard input ends, and answers each line there with the CPU time used so far.
func runRole(role string) {
	kind, peer, _ := strings.Cut(role, " ")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	handler := http.Handler(http.HandlerFunc(kibHandler))
	switch kind {
	case "origin": // plain
		go func() { _ = http.Serve(l, handler) }()
	case "stock-origin":
		s := &http.Server{Handler: handler, TLSConfig: testTLS("h2")}
		go func() { _ = s.ServeTLS(l, "", "") }()
	case "stock-proxy":
		u, _ := url.Parse("https://" + peer)
		go func() {
			_ = http.Serve(l, &httputil.ReverseProxy{
				Transport: &http.Transport{TLSClientConfig: testTLS("h2"), ForceAttemptHTTP2: true, DisableCompression: true},
				Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(u) },
			})
		}()
	case "active":
		r, _ := NewRouter(Config{Node: "a", NodeID: "id-a"})
		go func() { _ = r.Run(context.Background()) }()
		r.Lead(1, newLease(), handler)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { _ = r.ServeConn(context.Background(), tls.Server(c, testTLS()), "id-b", "b") }()
			}
		}()
	case "standby":
		r, _ := NewRouter(Config{Node: "b", NodeID: "id-b"})
		go func() { _ = r.Run(context.Background()) }()
		r.Follow(Target{Term: 1, NodeID: "id-a", Name: "a", Dial: func(context.Context) (net.Conn, error) {
			return tls.Dial("tcp", peer, testTLS())
		}})
		go func() { _ = http.Serve(l, r) }()
	}
	fmt.Println(l.Addr())
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		fmt.Println(cpuTime().Nanoseconds())
	}
}

type process struct {
	addr string
	in   io.Writer
	out  *bufio.Scanner
}

func startRole(b *testing.B, role string) *process {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"="+role, certEnv+"="+exportCert(b))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	p := &process{in: in, out: bufio.NewScanner(out)}
	if !p.out.Scan() {
		b.Fatal("no address from", role)
	}
	p.addr = p.out.Text()
	return p
}

func (p *process) cpu(b *testing.B) time.Duration {
	fmt.Fprintln(p.in)
	var n int64
	if !p.out.Scan() {
		b.Fatal("process ended")
	}
	fmt.Sscan(p.out.Text(), &n)
	return time.Duration(n)
}

func exportCert(b *testing.B) string {
	cert := testCert()
	key, err := x509.MarshalECPrivateKey(cert.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		b.Fatal(err)
	}
	p := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
	p = append(p, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key})...)
	return base64.StdEncoding.EncodeToString(p)
}

// importCert is the certificate that a process in a role was given.
func importCert() (tls.Certificate, bool) {
	p, err := base64.StdEncoding.DecodeString(os.Getenv(certEnv))
	if err != nil || len(p) == 0 {
		return tls.Certificate{}, false
	}
	cert, err := tls.X509KeyPair(p, p)
	if err != nil {
		return tls.Certificate{}, false
	}
	return cert, true
}

// BenchmarkProcesses reports, per request, the CPU time of the nodes alone, without the load.
func BenchmarkProcesses(b *testing.B) {
	kinds := []struct {
		name  string
		nodes func(b *testing.B) []*process
	}{
		{"direct", func(b *testing.B) []*process { return []*process{startRole(b, "origin")} }},
		{"stock", func(b *testing.B) []*process {
			o := startRole(b, "stock-origin")
			return []*process{startRole(b, "stock-proxy "+o.addr), o}
		}},
		{"locum", func(b *testing.B) []*process {
			a := startRole(b, "active")
			return []*process{startRole(b, "standby "+a.addr), a}
		}},
	}
	for _, conns := range []int{1, 16, 64} {
		for _, k := range kinds {
			b.Run(fmt.Sprintf("%s/c=%d", k.name, conns), func(b *testing.B) {
				nodes := k.nodes(b)
				load(b, nodes[0].addr, conns, nodes...)
			})
		}
	}
}
