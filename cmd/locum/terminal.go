package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// colour is one of the terminal's sixteen.
type colour string

// What the colours are used for.
const (
	red    colour = "31" // errors
	green  colour = "32" // what is as it should be
	yellow colour = "33" // warnings
	cyan   colour = "36" // hints
	faint  colour = "2"  // what is only said for completeness
)

// isTerminal reports whether somebody looks at w.
func (a *app) isTerminal(w io.Writer) bool {
	if a.terminal != nil {
		return a.terminal(w)
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// paint colours text that goes to w: on a terminal alone, and not where NO_COLOR is set (no-color.org).
func (a *app) paint(w io.Writer, c colour, text string) string {
	no, _ := a.env("NO_COLOR")
	kind, _ := a.env("TERM")
	if no != "" || kind == "dumb" || !a.isTerminal(w) {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// progress shows on a terminal, in one line of stderr, what is being done. The function that it returns shows the next
// step, or with "" takes the line away. Elsewhere nothing is shown.
func (a *app) progress() func(step string) {
	if kind, _ := a.env("TERM"); kind == "dumb" || !a.isTerminal(a.err) {
		return func(string) {}
	}
	return func(step string) {
		if step != "" {
			step += " …"
		}
		fmt.Fprint(a.err, "\r\x1b[K"+step)
	}
}
