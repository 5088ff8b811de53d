package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/term"

	"github.com/locum-ha/locum/client"
)

// maxSecret bounds what is read of a secret from stdin.
const maxSecret = 64 << 10

// secret asks for one: on a terminal without echo, else as the first line of stdin.
func (a *app) secret(prompt string) (client.Secret, error) {
	if f, ok := a.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(a.err, "%s (will be hidden): ", prompt)
		data, err := readHidden(f)
		fmt.Fprintln(a.err)
		if err != nil {
			return "", fmt.Errorf("reading the %s: %w", prompt, err)
		}
		return nonEmpty(prompt, string(data))
	}
	line, err := bufio.NewReader(io.LimitReader(a.in, maxSecret)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("reading the %s: %w", prompt, err)
	}
	return nonEmpty(prompt, line)
}

// readHidden reads a line without echo. A signal that ends the process meanwhile, as Ctrl-C does, first gives the terminal its echo back:
// the shell would be left without.
func readHidden(f *os.File) ([]byte, error) {
	before, err := term.GetState(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, ending()...)
	done := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-done:
		case s := <-caught:
			_ = term.Restore(int(f.Fd()), before)
			signal.Reset(s)
			raise(s)
		}
	})
	defer watch.Wait()
	defer close(done)
	defer signal.Stop(caught)
	return term.ReadPassword(int(f.Fd()))
}

// ending are the signals that end the process and are not ignored, as SIGHUP is under nohup.
func ending() []os.Signal {
	return slices.DeleteFunc([]os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}, signal.Ignored)
}

// raise sends the signal to this process, that who waits for it sees what it died of.
func raise(s os.Signal) {
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		_ = p.Signal(s)
	}
}

func nonEmpty(prompt, text string) (client.Secret, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return "", withHint(fmt.Errorf("no %s was given", prompt), "type it when asked, or send it to stdin")
	}
	return client.Secret(text), nil
}
