package forward

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/netip"
)

// Bits of a request head.
const (
	headTLS        = 1 << 0 // the client spoke TLS
	headVerified   = 1 << 1 // … and its certificate was verified by the standby
	headHijackable = 1 << 2 // the handler may take over the client's connection
	headRepeat     = 1 << 3 // may have been delivered before
	headExpect     = 1 << 4 // the body waits for 100-continue: sent only once the handler reads
	headTrailer    = 1 << 5 // names of trailers follow
)

// requestHead is a request as it travels, without its body.
type requestHead struct {
	bits          uint8
	protoMajor    uint8
	protoMinor    uint8
	window        uint64 // bytes of the answer's body that may be sent at first
	contentLength int64  // -1: unknown
	method        string
	uri           string // as the client sent it
	host          string
	remoteAddr    string
	id            string // X-Request-Id
	slot          string
	key           string
	tls           tlsInfo
	trailers      []string
	header        http.Header
}

// tlsInfo is what a handler may ask about the client's TLS connection.
type tlsInfo struct {
	version    uint64
	cipher     uint64
	serverName string
	alpn       string
	chain      []string // DER, leaf first
}

// appendRequest writes the head of r. Hop-by-hop fields are left out. ok is false if it is more than the
// other side takes.
func appendRequest(b []byte, r *http.Request, h *requestHead) (_ []byte, ok bool) {
	start := len(b)
	b = append(b, h.bits, uint8(r.ProtoMajor), uint8(r.ProtoMinor))
	b = binary.AppendUvarint(b, h.window)
	b = binary.AppendUvarint(b, uint64(r.ContentLength+1))
	b = appendString(b, r.Method)
	b = appendString(b, h.uri)
	b = appendString(b, r.Host)
	b = appendString(b, r.RemoteAddr)
	b = appendString(b, h.id)
	b = appendString(b, h.slot)
	b = appendString(b, h.key)
	if h.bits&headTLS != 0 {
		b = appendTLS(b, r.TLS)
	}
	if h.bits&headTrailer != 0 {
		b = binary.AppendUvarint(b, uint64(len(r.Trailer)))
		for name := range r.Trailer {
			b = appendString(b, name)
		}
	}
	b, ok = appendRequestHeader(b, r.Header)
	return b, ok && len(b)-start <= maxHead
}

func appendTLS(b []byte, cs *tls.ConnectionState) []byte {
	b = binary.AppendUvarint(b, uint64(cs.Version))
	b = binary.AppendUvarint(b, uint64(cs.CipherSuite))
	b = appendString(b, cs.ServerName)
	b = appendString(b, cs.NegotiatedProtocol)
	b = binary.AppendUvarint(b, uint64(len(cs.PeerCertificates)))
	for _, c := range cs.PeerCertificates {
		b = binary.AppendUvarint(b, uint64(len(c.Raw)))
		b = append(b, c.Raw...)
	}
	return b
}

// decodeRequest reads what appendRequest wrote. The error is errProtocol.
func decodeRequest(payload string) (requestHead, error) {
	d := decoder{s: payload}
	h := requestHead{bits: d.u8(), protoMajor: d.u8(), protoMinor: d.u8()}
	h.window = d.uvarint()
	h.contentLength = int64(d.uvarint()) - 1
	h.method = d.str()
	h.uri = d.str()
	h.host = d.str()
	h.remoteAddr = d.str()
	h.id = d.str()
	h.slot = d.str()
	h.key = d.str()
	if h.bits&headTLS != 0 {
		h.tls = decodeTLS(&d)
	}
	if h.bits&headTrailer != 0 {
		n := d.uvarint()
		if n > uint64(len(d.s)) {
			d.fail()
		}
		for i := uint64(0); i < n && !d.bad; i++ {
			h.trailers = append(h.trailers, http.CanonicalHeaderKey(d.str()))
		}
	}
	h.header = make(http.Header, 12)
	d.header(h.header)
	if d.bad || h.contentLength < -1 || h.window > maxWindow || h.method == "" {
		return h, fmt.Errorf("%w: request head", errProtocol)
	}
	return h, nil
}

func decodeTLS(d *decoder) tlsInfo {
	t := tlsInfo{version: d.uvarint(), cipher: d.uvarint(), serverName: d.str(), alpn: d.str()}
	n := d.uvarint()
	if n > 64 {
		d.fail()
		return t
	}
	for i := uint64(0); i < n && !d.bad; i++ {
		t.chain = append(t.chain, d.str())
	}
	return t
}

// decodeResponse reads a RESPONSE or INFO payload: status, then fields.
func decodeResponse(payload string) (status int, h http.Header, err error) {
	d := decoder{s: payload}
	status = int(d.uvarint())
	h = make(http.Header, 8)
	d.header(h)
	if d.bad || status < 100 || status > 999 {
		return 0, nil, fmt.Errorf("%w: response head", errProtocol)
	}
	return status, h, nil
}

func decodeTrailers(payload string) (http.Header, error) {
	d := decoder{s: payload}
	h := make(http.Header, 4)
	d.header(h)
	if d.bad {
		return nil, fmt.Errorf("%w: trailers", errProtocol)
	}
	return h, nil
}

// hello is the first frame of each side. Fields that a later version adds come at the end and are
// ignored by an older one.
type hello struct {
	minVersion uint64
	maxVersion uint64
	window     uint64 // bytes of a body that may be sent to this side before it says more
	streams    uint64 // streams that this side accepts at a time
	nodeID     string
	nodeName   string
	info       string // Config.Hello
	process    string // differs between the side's incarnations
	number     uint64 // of the connection, rising within one
}

// replaces reports whether a connection with this hello takes the place of one with the other, of the same
// node: it is the newer one, or of another process. They may arrive in another order than they were made.
func (h *hello) replaces(o *hello) bool { return h.process != o.process || h.number > o.number }

const (
	versionMin = 1
	versionMax = 1
)

func (h hello) append(b []byte) []byte {
	b = binary.AppendUvarint(b, h.minVersion)
	b = binary.AppendUvarint(b, h.maxVersion)
	b = binary.AppendUvarint(b, h.window)
	b = binary.AppendUvarint(b, h.streams)
	b = appendString(b, h.nodeID)
	b = appendString(b, h.nodeName)
	b = appendString(b, h.info)
	b = appendString(b, h.process)
	return binary.AppendUvarint(b, h.number)
}

func decodeHello(payload string) (hello, error) {
	d := decoder{s: payload}
	h := hello{
		minVersion: d.uvarint(), maxVersion: d.uvarint(), window: d.uvarint(), streams: d.uvarint(),
		nodeID: d.str(), nodeName: d.str(), info: d.str(), process: d.str(), number: d.uvarint(),
	}
	if d.bad || h.window > maxWindow || h.streams == 0 {
		return h, fmt.Errorf("%w: hello", errProtocol)
	}
	if h.minVersion > versionMax || h.maxVersion < versionMin {
		return h, fmt.Errorf("%w: peer %q speaks versions %d to %d, this node %d to %d", ErrVersion,
			h.nodeName, h.minVersion, h.maxVersion, versionMin, versionMax)
	}
	return h, nil
}

// clientIP is the address part of a RemoteAddr, or all of it if it has no port.
func clientIP(remoteAddr string) string {
	if ap, err := netip.ParseAddrPort(remoteAddr); err == nil {
		return ap.Addr().String()
	}
	return remoteAddr
}
