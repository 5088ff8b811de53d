package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openPTY makes a terminal: what is written to keyboard is typed at it, and what it shows is read there.
func openPTY(t *testing.T) (keyboard, terminal *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { _ = keyboard.Close() })
	if err := unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	number, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	return keyboard, terminal
}

// A secret that is typed is not shown, neither by the terminal nor by the prompt.
func TestPromptDoesNotEcho(t *testing.T) {
	keyboard, terminal := openPTY(t)
	a, _, _ := newApp()
	a.in, a.err = terminal, terminal
	got := make(chan string, 1)
	go func() {
		secret, err := a.secret("token")
		if err != nil {
			got <- "error: " + err.Error()
			return
		}
		got <- string(secret)
	}()
	var screen bytes.Buffer
	buf := make([]byte, 256)
	read := func(until string) {
		for !strings.Contains(screen.String(), until) {
			n, err := keyboard.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			screen.Write(buf[:n])
		}
	}
	read("(will be hidden): ")
	// Echo is switched off just after the prompt: typing waits for it, as people are slow.
	await(t, "echo is off", func() bool {
		mode, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
		return err == nil && mode.Lflag&unix.ECHO == 0
	})
	if _, err := keyboard.WriteString("s.planted\n"); err != nil {
		t.Fatal(err)
	}
	if secret := <-got; secret != "s.planted" {
		t.Errorf("got %q", secret)
	}
	read("\n")
	if strings.Contains(screen.String(), "planted") {
		t.Errorf("the secret is on the screen: %q", &screen)
	}
}

// Ctrl-C at the prompt ends the command, and leaves the terminal as it was.
func TestInterruptedPromptRestoresEcho(t *testing.T) {
	keyboard, terminal := openPTY(t)
	echo := func() bool {
		mode, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
		return err == nil && mode.Lflag&unix.ECHO != 0
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, builtBinary(t), "token", "lookup", "-")
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "echo is off", func() bool { return !echo() })
	if _, err := keyboard.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	var ended *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &ended) || ended.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT {
		t.Errorf("it ended with %v", err)
	}
	if !echo() {
		t.Error("the terminal is left without echo")
	}
}
