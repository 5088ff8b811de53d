package nats

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical"
)

// documented are the subjects that docs/stores/nats.md says the user must be allowed to publish to, for a bucket.
func documented(t *testing.T, bucket string) (subjects []string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/stores/nats.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "Rights of the user: publish to")
	list, _, found := strings.Cut(rest, "; subscribe to\n`_INBOX.>`")
	if !found {
		t.Fatal("docs/stores/nats.md does not say what to subscribe to")
	}
	for _, quoted := range regexp.MustCompile("`[^`]+`").FindAllString(list, -1) {
		subjects = append(subjects, strings.ReplaceAll(strings.Trim(quoted, "`"), "<bucket>", bucket))
	}
	return subjects
}

// user is one of the server's that may publish to these subjects.
func user(name string, publish []string, subscribe string) string {
	quoted := make([]string, len(publish))
	for i, subject := range publish {
		quoted[i] = strconv.Quote(subject)
	}
	return fmt.Sprintf("{ user: %s, password: right, permissions: { publish: [%s], subscribe: [%s] } }", name, strings.Join(quoted, ", "), subscribe)
}

// The rights that the page lists are enough, and each that is missing is named, at once: the server answers nobody who lacks one.
func TestRights(t *testing.T) {
	all := documented(t, "locum")
	const inbox = `"_INBOX.>"`
	users := []string{user("full", all, inbox), user("deaf", all, `"other"`)}
	lacks := map[string]string{"deaf": `subscribe to "_INBOX.`}
	for i, subject := range all {
		name := fmt.Sprintf("lacks%d", i)
		users = append(users, user(name, slices.Delete(slices.Clone(all), i, i+1), inbox))
		lacks[name] = `publish to "` + strings.TrimRight(subject, ">")
	}
	server := storeserver.StartNATS(t, "authorization { users: ["+strings.Join(users, "\n")+"] }")
	as := func(name string) (*Store, error) {
		return open(Config{URLs: []string{server.URL("")}, Username: name, Password: "right"})
	}
	life := func(s *Store) (err error) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		g, err := s.Acquire(ctx, holder, time.Minute, 0)
		if err != nil {
			return err
		}
		woken := make(chan error, 1)
		go func() { _, err := s.Watch(ctx, g.Record); woken <- err }()
		return errors.Join(s.Release(ctx, g, "b"), <-woken)
	}
	check := func(name string) {
		t.Helper()
		start := time.Now()
		s, err := as(name)
		if err == nil {
			err = life(s)
			_ = s.Close()
		}
		want := lacks[name]
		switch {
		case strings.Contains(want, ".CONSUMER."): // it polls; the log says why
			if err != nil {
				t.Errorf("%s: without the right to %s: %v", name, want, err)
			}
		case !errors.Is(err, physical.ErrUnavailable) || !strings.Contains(err.Error(), "no right to "+want):
			t.Errorf("%s: %v, want %q in it", name, err, want)
		case time.Since(start) > 5*time.Second:
			t.Errorf("%s: it took %v to say %v", name, time.Since(start), err)
		}
	}
	for name, want := range lacks { // while there is no bucket
		if strings.Contains(want, "STREAM.CREATE") {
			check(name)
			delete(lacks, name)
		}
	}
	s, err := as("full")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := life(s); err != nil {
		t.Error(err)
	}
	told := func() bool { s.key.mu.Lock(); defer s.key.mu.Unlock(); return s.key.up }
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(15 * time.Second); !told(); <-ticker.C {
		if time.Now().After(deadline) {
			t.Fatal("with all rights, the server does not tell of changes")
		}
	}
	for name := range lacks {
		check(name)
	}
}
