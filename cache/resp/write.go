package resp

import "strconv"

// writer gathers answers. In RESP2 what only RESP3 knows is written in the older form that Redis uses for it.
type writer struct {
	buf   []byte
	resp3 bool
}

func (w *writer) line(kind byte, text string) {
	w.buf = append(w.buf, kind)
	w.buf = append(w.buf, text...)
	w.buf = append(w.buf, '\r', '\n')
}

func (w *writer) count(kind byte, n int) {
	w.buf = append(w.buf, kind)
	w.buf = strconv.AppendInt(w.buf, int64(n), 10)
	w.buf = append(w.buf, '\r', '\n')
}

func (w *writer) ok() { w.line('+', "OK") }

func (w *writer) simple(text string) { w.line('+', text) }

// fail writes an error. Its text begins with the error's code: "ERR …".
func (w *writer) fail(text string) {
	w.buf = append(w.buf, '-')
	for i := range len(text) {
		c := text[i]
		if c == '\r' || c == '\n' {
			c = ' '
		}
		w.buf = append(w.buf, c)
	}
	w.buf = append(w.buf, '\r', '\n')
}

func (w *writer) integer(n int64) {
	w.buf = append(w.buf, ':')
	w.buf = strconv.AppendInt(w.buf, n, 10)
	w.buf = append(w.buf, '\r', '\n')
}

func (w *writer) flag(b bool) {
	n := int64(0)
	if b {
		n = 1
	}
	w.integer(n)
}

func (w *writer) bulk(b []byte) {
	w.count('$', len(b))
	w.buf = append(w.buf, b...)
	w.buf = append(w.buf, '\r', '\n')
}

func (w *writer) text(s string) {
	w.count('$', len(s))
	w.buf = append(w.buf, s...)
	w.buf = append(w.buf, '\r', '\n')
}

func (w *writer) null() {
	if w.resp3 {
		w.buf = append(w.buf, '_', '\r', '\n')
		return
	}
	w.buf = append(w.buf, '$', '-', '1', '\r', '\n')
}

// nullArray is null in the place of an array.
func (w *writer) nullArray() {
	if w.resp3 {
		w.null()
		return
	}
	w.buf = append(w.buf, '*', '-', '1', '\r', '\n')
}

// value writes a bulk string, or null where there is none.
func (w *writer) value(b []byte, found bool) {
	if !found {
		w.null()
		return
	}
	w.bulk(b)
}

func (w *writer) array(n int) { w.count('*', n) }

// pairs begins a map of n keys and values.
func (w *writer) pairs(n int) {
	if w.resp3 {
		w.count('%', n)
		return
	}
	w.count('*', 2*n)
}

func (w *writer) set(n int) {
	if w.resp3 {
		w.count('~', n)
		return
	}
	w.array(n)
}

// push begins a message out of turn.
func (w *writer) push(n int) {
	if w.resp3 {
		w.count('>', n)
		return
	}
	w.array(n)
}

// verbatim writes text that is to be shown as it is.
func (w *writer) verbatim(s string) {
	if !w.resp3 {
		w.text(s)
		return
	}
	w.count('=', len(s)+4)
	w.buf = append(w.buf, "txt:"...)
	w.buf = append(w.buf, s...)
	w.buf = append(w.buf, '\r', '\n')
}
