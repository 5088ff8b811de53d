package forward

import (
	"encoding/binary"
	"net/http"
)

// headerNames are sent as their index: the names that nearly every request or answer has. The list is
// part of the protocol: append only.
var headerNames = [...]string{
	"Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Cache-Control", "Connection",
	"Content-Encoding", "Content-Length", "Content-Type", "Cookie", "Date", "Etag", "Expect",
	"Grpc-Accept-Encoding", "Grpc-Encoding", "Grpc-Message", "Grpc-Status", "Grpc-Timeout",
	"Idempotency-Key", "If-Match", "If-Modified-Since", "If-None-Match", "Last-Modified", "Location",
	"Origin", "Range", "Referer", "Retry-After", "Server", "Set-Cookie", "Te", "Trailer", "Traceparent",
	"Tracestate", "Upgrade", "User-Agent", "Vary", "Www-Authenticate", "X-Content-Type-Options",
	"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Locum-Forwarded-By", "X-Locum-Node",
	"X-Locum-Term", "X-Request-Id", "X-Vault-Namespace", "X-Vault-Request", "X-Vault-Token",
}

var headerIndex = func() map[string]uint64 {
	m := make(map[string]uint64, len(headerNames))
	for i, n := range headerNames {
		m[n] = uint64(i)
	}
	return m
}()

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// appendName writes a header's name: an odd number is an index into headerNames, an even one twice the
// length of the name that follows.
func appendName(b []byte, name string) []byte {
	if i, ok := headerIndex[name]; ok {
		return binary.AppendUvarint(b, i<<1|1)
	}
	b = binary.AppendUvarint(b, uint64(len(name))<<1)
	return append(b, name...)
}

func appendField(b []byte, name string, values []string) []byte {
	if name == "" {
		return b // nobody could send it on
	}
	b = appendName(b, name)
	b = binary.AppendUvarint(b, uint64(len(values)))
	for _, v := range values {
		b = appendString(b, v)
	}
	return b
}

func appendField1(b []byte, name, value string) []byte {
	b = appendName(b, name)
	b = append(b, 1)
	return appendString(b, value)
}

// appendHeader writes all fields but those that skip names. There is no count in front: a block ends
// with the frame, so that fields can be added behind it. ok is false if no decoder would take them all.
func appendHeader(b []byte, h http.Header, skip func(string) bool) (_ []byte, ok bool) {
	n, start := 0, len(b)
	for name, values := range h {
		if skip != nil && skip(name) {
			continue
		}
		n += 1 + len(values)
		b = appendField(b, name, values)
	}
	return b, fits(n, len(b)-start)
}

// fits leaves room for what is added to a header on its way.
func fits(fields, bytes int) bool { return fields < maxFields-64 && bytes < maxHead-64<<10 }

// A decoder reads a payload that was turned into a string once: every string that it hands out is a
// part of that one. After the first fault all further reads give zero values and bad is true.
type decoder struct {
	s   string
	bad bool
}

func (d *decoder) fail() {
	d.bad = true
	d.s = ""
}

func (d *decoder) u8() uint8 {
	if len(d.s) < 1 {
		d.fail()
		return 0
	}
	c := d.s[0]
	d.s = d.s[1:]
	return c
}

func (d *decoder) uvarint() uint64 {
	var v uint64
	for i := 0; i < len(d.s) && i < binary.MaxVarintLen64; i++ {
		c := d.s[i]
		if c < 0x80 {
			if i == binary.MaxVarintLen64-1 && c > 1 {
				break
			}
			d.s = d.s[i+1:]
			return v | uint64(c)<<(7*i)
		}
		v |= uint64(c&0x7f) << (7 * i)
	}
	d.fail()
	return 0
}

func (d *decoder) take(n uint64) string {
	if n > uint64(len(d.s)) {
		d.fail()
		return ""
	}
	s := d.s[:n]
	d.s = d.s[n:]
	return s
}

func (d *decoder) str() string { return d.take(d.uvarint()) }

func (d *decoder) name() string {
	v := d.uvarint()
	if v&1 == 0 {
		return d.take(v >> 1)
	}
	if v>>1 >= uint64(len(headerNames)) {
		d.fail()
		return ""
	}
	return headerNames[v>>1]
}

// header reads fields to the end of the payload into h. All single values share one array, as in
// net/http.
func (d *decoder) header(h http.Header) {
	var pool []string
	fields := uint64(0)
	for len(d.s) > 0 {
		name := d.name()
		n := d.uvarint()
		fields += 1 + n
		if d.bad || name == "" || n > uint64(len(d.s)) || fields > maxFields {
			d.fail()
			return
		}
		if n == 0 {
			// Present without a value: net/http takes it as "do not set this yourself".
			if _, ok := h[name]; !ok {
				h[name] = nil
			}
			continue
		}
		if n == 1 {
			if len(pool) == 0 {
				pool = make([]string, 8)
			}
			v := pool[:1:1]
			pool = pool[1:]
			v[0] = d.str()
			if prev, ok := h[name]; ok {
				v = append(prev, v[0])
			}
			h[name] = v
			continue
		}
		values := make([]string, n)
		for i := range values {
			values[i] = d.str()
		}
		h[name] = append(h[name], values...)
	}
	if d.bad {
		clear(h)
	}
}
