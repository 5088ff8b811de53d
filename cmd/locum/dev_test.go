package main

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestTracker(t *testing.T) {
	start := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	tr := &tracker{}
	steps := []struct {
		s    sight
		want string
	}{
		{sight{at(0), "node-1", 11, 1}, "node-1 leads in term 1 (pid 11)"},
		{sight{at(100), "node-1", 11, 1}, ""},
		{sight{at(520), "node-2", 22, 3}, "node-2 leads in term 3 (pid 22), after node-1; nobody led for 420ms"},
		{sight{at(530), "node-1", 11, 1}, ""}, // an old sight that comes late
		{sight{at(600), "node-2", 22, 3}, ""},
		{sight{at(700), "node-2", 22, 4}, "node-2 leads in term 4 (pid 22), after node-2; nobody led for 100ms"},
	}
	for i, step := range steps {
		if got := tr.see(step.s); got != step.want {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
	if got := tr.silence(at(3000)); got != "" {
		t.Errorf("after 2.3s: %q", got)
	}
	if got := tr.silence(at(5800)); !strings.HasPrefix(got, "nobody has led since 10:00:00 (node-2, term 4)") {
		t.Errorf("after 5.1s: %q", got)
	}
	if got := tr.silence(at(9000)); got != "" {
		t.Errorf("said twice: %q", got)
	}
}

func TestDevRefuses(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	taken := ln.Addr().(*net.TCPAddr).Port
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "node-4"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ args, want string }{
		{"dev -nodes 0", "write -nodes with a number from 1 to 9"},
		{"dev -port 65530", "leaves no room for 3 nodes"},
		{"dev -nodes 1 -port " + strconv.Itoa(taken), "port " + strconv.Itoa(taken) + ", for the API of node-1, cannot be used"},
		{"dev -dir " + dir, "the cluster there has more than 3 nodes"},
		{"dev ./app", "stands behind --"},
		{"dev --", "no command behind --"},
	} {
		var stderr strings.Builder
		a := &app{in: strings.NewReader(""), out: io.Discard, err: &stderr, env: os.LookupEnv}
		if code := a.run(context.Background(), strings.Fields(tc.args)); code != 1 || !strings.Contains(stderr.String(), tc.want) {
			t.Errorf("%s: exit %d, %s", tc.args, code, stderr.String())
		}
	}
}
