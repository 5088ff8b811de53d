package election

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
)

var updateTraces = flag.Bool("election.update", false, "write what the traces in testdata should say")

// TestTraces feeds the core the events of the files in testdata and compares the effects. In a file, "# …" is a comment, "node …" sets
// the node up, "> TIME EVENT …" is an event, and what follows it are the effects, then "= ROLE … wake TIME".
func TestTraces(t *testing.T) {
	files, err := filepath.Glob("testdata/*.trace")
	if err != nil || len(files) == 0 {
		t.Fatalf("no traces: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".trace"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := runTrace(want)
			if err != nil {
				t.Fatal(err)
			}
			if *updateTraces {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got:\n%s", difference(string(got), string(want)))
			}
		})
	}
}

// difference shows got from the block in which it begins to differ.
func difference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			return strings.Join(g[max(0, i-6):min(len(g), i+8)], "\n")
		}
	}
	return got
}

const traceStart = instant(time.Hour)

func runTrace(file []byte) ([]byte, error) {
	var out bytes.Buffer
	p := timesOf(time.Second)
	p.pollEvery, p.stepDownGrace, p.fenceLimit = 100*time.Millisecond, 2*time.Second, 2*time.Second
	p.drainLimit, p.deactivateLimit = 10*time.Second, 5*time.Second
	p.backoffMin, p.backoffMax, p.stable = 500*time.Millisecond, 4*time.Second, 4*time.Second
	p.id, p.name, p.priority = "a", "a", defaultPriority
	var s state
	made := false
	lines := bufio.NewScanner(bytes.NewReader(file))
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "#"), line == "":
			fmt.Fprintln(&out, line)
		case strings.HasPrefix(line, "node"):
			fmt.Fprintln(&out, line)
			p.watch = strings.Contains(line, "watch")
			p.yields = strings.Contains(line, "yields")
			if _, prio, ok := strings.Cut(line, "priority="); ok {
				p.priority, _ = strconv.Atoi(strings.Fields(prio)[0])
			}
			if _, least, ok := strings.Cut(line, "failover="); ok {
				p.minFailover, _ = time.ParseDuration(strings.Fields(least)[0])
			}
			if _, limit, ok := strings.Cut(line, "deactivate="); ok {
				p.deactivateLimit, _ = time.ParseDuration(strings.Fields(limit)[0])
			}
		case strings.HasPrefix(line, "> "):
			if !made {
				s, made = newState(p, true, 1), true
			}
			ev, err := parseEvent(strings.Fields(line[2:]), &s)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
			fmt.Fprintln(&out, line)
			var effects []effect
			s, effects = step(s, ev)
			for i := range effects {
				fmt.Fprintf(&out, "  %s\n", showEffect(&effects[i]))
			}
			fmt.Fprintf(&out, "= %s\n", showState(&s))
			if err := s.valid(); err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
		}
	}
	return out.Bytes(), lines.Err()
}

func showTime(i instant) string {
	switch i {
	case never:
		return "never"
	case 0:
		return "0"
	}
	return i.Sub(traceStart).String()
}

func showState(s *state) string {
	text := s.role.String()
	if s.lead.term != 0 {
		text += fmt.Sprintf(" term=%d", s.lead.term)
		if s.lead.open {
			text += " lease=" + showTime(s.lead.deadline)
		}
	}
	return text + " wake=" + showTime(s.wake())
}

func showFence(f physical.Fence) string {
	if f.IsZero() {
		return "none"
	}
	return fmt.Sprintf("%s/%d/%d", f.Lineage, f.Term, f.Nonce[0])
}

var observationNames = [...]string{obRenewed: "renewed", obFenced: "fenced", obActivated: "activated", obEnded: "ended", obLost: "lost", obLeaderless: "leaderless"}

func showEffect(e *effect) string {
	text := effectNames[e.kind]
	add := func(format string, args ...any) { text += " " + fmt.Sprintf(format, args...) }
	if e.seq != 0 {
		add("#%d", e.seq)
	}
	switch e.kind {
	case doWatch:
		add("seen=%s/%d", e.record.Holder, e.record.Term)
	case doAcquire:
		add("above=%d", e.above)
	case doRelease:
		add("next=%s auto=%t", e.next, e.auto)
	case doRaise:
		add("from=%s to=%s", showFence(e.fence), showFence(e.to))
	case doYield:
		add("to=%s", e.next)
	case doActivate:
		add("%s", showFence(e.fence))
	case doLog:
		add("%s→%s", e.from, e.role)
	case doWarn:
		add("%q", e.msg)
	case doObserve:
		add("%s", observationNames[e.what])
		if e.d != 0 {
			add("%s", e.d)
		}
	case doReply:
		add("%d", e.id)
	}
	if e.deadline != 0 || e.kind == doGuard {
		add("until=%s", showTime(e.deadline))
	}
	if e.limit != 0 {
		add("limit=%s", showTime(e.limit))
	}
	if e.err != nil {
		add("(%v)", e.err)
	}
	return text
}

var traceErrors = map[string]error{"unavailable": physical.ErrUnavailable, "unknown": physical.ErrUnknown, "lost": physical.ErrLost,
	"fenced": physical.ErrFenced, "expired": ErrExpired}

// parseEvent reads TIME NAME [#seq] [key=value …].
func parseEvent(words []string, s *state) (event, error) {
	if len(words) < 2 {
		return event{}, fmt.Errorf("want a time and an event")
	}
	at, err := time.ParseDuration(words[0])
	if err != nil {
		return event{}, err
	}
	names := map[string]eventKind{"tick": evTick, "start": evStart, "record": evRecord, "fence": evFence, "acquired": evAcquired,
		"renewed": evRenewed, "raised": evRaised, "released": evReleased, "yielded": evYielded, "activated": evActivated,
		"drained": evDrained, "deactivated": evDeactivated, "abort": evAbort, "step-down": evStepDown, "skip-drain": evSkipDrain,
		"pause": evPause, "candidate": evCandidate, "rival": evRival, "stop": evStop, "hurry": evHurry}
	kind, ok := names[words[1]]
	if !ok {
		return event{}, fmt.Errorf("no event %q", words[1])
	}
	ev := event{kind: kind, now: traceStart.Add(at), term: s.lead.term, lineage: "l", nonce: [16]byte{7}, id: 1}
	args := map[string]string{}
	for _, w := range words[2:] {
		if strings.HasPrefix(w, "#") {
			ev.seq, _ = strconv.ParseUint(w[1:], 10, 64)
			continue
		}
		key, value, _ := strings.Cut(w, "=")
		args[key] = value
	}
	number := func(key string) uint64 {
		v, _ := strconv.ParseUint(args[key], 10, 64)
		return v
	}
	if text, ok := args["err"]; ok {
		if ev.err = traceErrors[text]; ev.err == nil {
			ev.err = errors.New(text)
		}
	}
	ev.next, ev.on, ev.n = args["next"], args["on"] == "true", int(number("n"))
	switch kind {
	case evRecord:
		ev.record = physical.Record{Holder: args["holder"], Term: number("term"), Next: args["next"]}
		if ev.record.Holder == "" && ev.err == nil {
			ev.err = physical.ErrNoHolder
		}
	case evFence:
		if number("term") != 0 {
			ev.fence = physical.Fence{Lineage: "l", Term: number("term"), Nonce: [16]byte{byte(number("nonce"))}}
		}
	case evAcquired:
		if h, held := args["held"]; held {
			ev.err = &physical.HeldError{Record: physical.Record{Holder: h, Term: number("term")}}
		} else if ev.err == nil {
			ev.grant = physical.Grant{Record: physical.Record{Holder: "a", Name: "a", Term: number("term")}, TTL: s.p.ttl}
		}
	case evRenewed:
		ev.grant = s.lead.grant
	}
	return ev, nil
}
