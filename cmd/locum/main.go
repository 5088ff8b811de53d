// Command locum runs Locum's nodes and operates them. Each command has a file of its own.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/locum-ha/locum/internal/server"
	"github.com/locum-ha/locum/internal/stores"
	"github.com/locum-ha/locum/supervise"
)

// Set by the linker: see the Makefile.
var (
	version   = "dev"
	buildDate = "unknown"
)

func main() {
	if code, mine := supervise.Main(os.Args, server.Release(stores.Open)); mine {
		os.Exit(code)
	}
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.LookupEnv}
	os.Exit(a.run(context.Background(), os.Args[1:]))
}

// app is what every command has of the outside.
type app struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) (string, bool)
	terminal func(io.Writer) bool // whether somebody looks at it; default: whether it is a terminal
}

// run carries one command line out and returns its exit code: 0 as asked, 1 error, 2 sealed (status).
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(doubleDashes(args))
	if last := len(args) - 1; isCompletion(args) && !strings.HasPrefix(args[last], "--") {
		root.SetOut(singleDashes{a.out})
	}
	err := root.ExecuteContext(ctx)
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	a.report(err)
	return 1
}

// exitCode ends a command with a code that is no error, and with nothing more to say.
type exitCode int

func (exitCode) Error() string { return "exit code" }
