package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/locum-ha/locum/client"
)

// maxSecret bounds what is read of a secret from stdin.
const maxSecret = 64 << 10

// secret asks for one: on a terminal without echo, else as the first line of stdin.
func (a *app) secret(prompt string) (client.Secret, error) {
	if f, ok := a.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(a.err, "%s (will be hidden): ", prompt)
		data, err := term.ReadPassword(int(f.Fd()))
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

func nonEmpty(prompt, text string) (client.Secret, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return "", withHint(fmt.Errorf("no %s was given", prompt), "type it when asked, or send it to stdin")
	}
	return client.Secret(text), nil
}
