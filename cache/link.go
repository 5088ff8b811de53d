package cache

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/locum-ha/locum/internal/quickio"
)

// Two nodes begin a connection like this. Who dials sends its hello: "locumcch", a format byte, a nonce, what
// the connection is for, the cluster, its own identity and host, and the identity it wants to reach. The
// other answers with a status byte, a nonce and its proof that it knows the token; then the dialler proves
// it too, and the other confirms with a status byte. A proof is an HMAC over both nonces, the hello and, under
// TLS, keying material of this very connection, so that no proof is good anywhere else.
const (
	linkMagic  = "locumcch"
	linkFormat = 1
	nonceSize  = 32
	maxHello   = 2 << 10
)

// What a connection is for.
const (
	forStatus byte = 'S' // asking how things are, and to be let in
	forRaft   byte = 'R' // raft's messages and the leader's pulse
	forWrites byte = 'W' // writes and questions to the leader
)

// hello says who calls, whom, and what for.
type hello struct {
	purpose  byte
	cluster  string
	from, to string // identities; to is "" for forStatus
	host     string // the caller's entry in the list of hosts
}

var (
	errProof   = errors.New("the other side does not know the auth token")
	errRefused = errors.New("connection refused by the other node")
	// errNotThere: the identity that is meant is no more.
	errNotThere = fmt.Errorf("%w: another incarnation runs there", errRefused)
)

const (
	statusOK      byte = 0
	statusNotMe   byte = 1 // the identity meant is not here (any more)
	statusNoProof byte = 2
)

// dialer makes proven connections to other hosts.
type dialer struct {
	layer Layer
	keys  *keys // nil: the layer proves identities
}

func (d *dialer) dial(ctx context.Context, host string, h hello) (net.Conn, error) {
	conn, err := d.layer.Dial(ctx, host)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	err = d.open(conn, h)
	if !stop() {
		err = errors.Join(err, context.Cause(ctx))
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("host %s: %w", host, err)
	}
	return conn, conn.SetDeadline(time.Time{})
}

func (d *dialer) open(conn net.Conn, h hello) error {
	nonce := make([]byte, nonceSize)
	_, _ = rand.Read(nonce) // never fails
	body := appendHello(nil, nonce, h)
	if _, err := conn.Write(append(binary.LittleEndian.AppendUint16(nil, uint16(len(body))), body...)); err != nil {
		return err
	}
	answer := make([]byte, 1+nonceSize+sha256.Size)
	if _, err := io.ReadFull(conn, answer[:1]); err != nil {
		return err
	}
	if answer[0] != statusOK {
		return statusError(answer[0])
	}
	if _, err := io.ReadFull(conn, answer[1:]); err != nil {
		return err
	}
	theirs := answer[1 : 1+nonceSize]
	if !hmac.Equal(answer[1+nonceSize:], d.proof("accepts", conn, body, theirs)) {
		return errProof
	}
	if _, err := conn.Write(d.proof("dials", conn, body, theirs)); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, answer[:1]); err != nil {
		return err
	}
	return statusError(answer[0])
}

func statusError(status byte) error {
	switch status {
	case statusOK:
		return nil
	case statusNotMe:
		return errNotThere
	case statusNoProof:
		return fmt.Errorf("%w: the auth tokens differ", errRefused)
	}
	return fmt.Errorf("%w: status %d", errRefused, status)
}

// accept answers a hello. admit says whether the identity that is meant is here.
func (d *dialer) accept(conn net.Conn, admit func(hello) bool) (hello, error) {
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return hello{}, err
	}
	body := make([]byte, binary.LittleEndian.Uint16(size[:]))
	if len(body) > maxHello {
		return hello{}, fmt.Errorf("%w hello", errFormat)
	}
	if _, err := io.ReadFull(conn, body); err != nil {
		return hello{}, err
	}
	h, err := decodeHello(body)
	if err != nil {
		return hello{}, err
	}
	nonce := make([]byte, nonceSize)
	_, _ = rand.Read(nonce) // never fails
	mine := d.proof("accepts", conn, body, nonce)
	if mine == nil {
		return hello{}, errProof
	}
	answer := append([]byte{statusOK}, nonce...)
	if _, err := conn.Write(append(answer, mine...)); err != nil {
		return hello{}, err
	}
	proof := make([]byte, sha256.Size)
	if _, err := io.ReadFull(conn, proof); err != nil {
		return hello{}, err
	}
	status, err := statusOK, error(nil)
	switch {
	case !hmac.Equal(proof, d.proof("dials", conn, body, nonce)):
		status, err = statusNoProof, errProof
	case !admit(h): // said only to those who know the token
		status, err = statusNotMe, fmt.Errorf("%s looks for another incarnation", h.host)
	}
	if _, werr := conn.Write([]byte{status}); err == nil {
		err = werr
	}
	return h, err
}

// proof is the HMAC of one side, nil if it would not be bound to the connection. Without keys the layer has proven more already.
func (d *dialer) proof(side string, conn net.Conn, hello, nonce []byte) []byte {
	if d.keys == nil {
		return make([]byte, sha256.Size)
	}
	mac := hmac.New(sha256.New, d.keys.proof)
	part := func(b []byte) {
		_, _ = mac.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(b)))) // a hash never fails
		_, _ = mac.Write(b)
	}
	part([]byte(side))
	part(hello)
	part(nonce)
	if c, ok := conn.(*tls.Conn); ok {
		state := c.ConnectionState()
		key, err := state.ExportKeyingMaterial("EXPORTER-locum-cache", nil, 32)
		if err != nil { // TLS below 1.3: nothing binds the proof to the connection
			return nil
		}
		part(key)
	}
	return mac.Sum(nil)
}

func appendHello(b, nonce []byte, h hello) []byte {
	b = append(append(append(b, linkMagic...), linkFormat), nonce...)
	b = append(b, h.purpose)
	b = appendBytes(appendBytes(b, h.cluster), h.from)
	return appendBytes(appendBytes(b, h.to), h.host)
}

func decodeHello(b []byte) (hello, error) {
	head := len(linkMagic) + 1 + nonceSize
	if len(b) < head || string(b[:len(linkMagic)]) != linkMagic {
		return hello{}, fmt.Errorf("%w hello", errFormat)
	}
	if f := b[len(linkMagic)]; f != linkFormat {
		return hello{}, fmt.Errorf("hello of format %d, this version knows %d", f, linkFormat)
	}
	d := decoder{b: b[head:]}
	h := hello{purpose: d.byte(), cluster: d.string(), from: d.string(), to: d.string(), host: d.string()}
	return h, d.end("hello")
}

// tcpLayer is the network as it is without one given: TCP, with TLS unless that is off.
type tcpLayer struct {
	ln     net.Listener
	client *tls.Config // nil without TLS
	server *tls.Config
	keep   net.KeepAliveConfig
}

func (n *Node) newTCPLayer(ctx context.Context, k *keys) (*tcpLayer, error) {
	l := &tcpLayer{keep: net.KeepAliveConfig{
		Enable: true, Idle: n.cfg.KeepaliveInterval, Interval: max(n.cfg.KeepaliveTimeout/3, time.Second), Count: 3,
	}}
	switch t := n.cfg.TLS; {
	case t.Disabled:
		n.cfg.Logger.Warn("the cache sends everything in the clear: TLS is disabled")
	case t.Server != nil:
		l.server, l.client = t.Server, t.Client
	default:
		var err error
		if l.server, l.client, err = k.certificates(); err != nil {
			return nil, err
		}
	}
	lc := net.ListenConfig{KeepAliveConfig: l.keep}
	ln, err := lc.Listen(ctx, "tcp", n.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("cache: opening the port: %w", err)
	}
	l.ln = ln
	return l, nil
}

func (l *tcpLayer) Addr() net.Addr { return l.ln.Addr() }
func (l *tcpLayer) Close() error   { return l.ln.Close() }

// Accept returns a connection whose TLS handshake is still to be done: by the first read, under its deadline.
func (l *tcpLayer) Accept() (net.Conn, error) {
	conn, err := l.ln.Accept()
	if err != nil {
		return nil, err
	}
	if conn = quickio.Conn(conn); l.server == nil {
		return conn, nil
	}
	return tls.Server(conn, l.server), nil
}

func (l *tcpLayer) Dial(ctx context.Context, host string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: l.keep}
	conn, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	if conn = quickio.Conn(conn); l.client == nil {
		return conn, nil
	}
	cfg := l.client
	if cfg.ServerName == "" && !cfg.InsecureSkipVerify {
		cfg = cfg.Clone()
		cfg.ServerName, _, _ = net.SplitHostPort(host)
	}
	secured := tls.Client(conn, cfg)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secured, nil
}
