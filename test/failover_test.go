package test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/fault"
)

// rounds is how often a fault is repeated on one cluster.
func rounds() int {
	if *long {
		return 10
	}
	return 2
}

// generous is what a gap may be in a test; the benchmark holds it against the target. Tests share the machine.
const generous = 3

// once does a fault, again if leadership moved by itself just before.
func once(t *testing.T, do func(context.Context) (*fault.Outcome, error)) *fault.Outcome {
	t.Helper()
	ctx := within(t, 2*time.Minute)
	for {
		out, err := do(ctx)
		if errors.Is(err, fault.ErrMoved) {
			t.Log(err)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%v", out)
		return out
	}
}

// P5: a planned switchover under 500 requests/s at all three nodes fails none and repeats none.
func TestStepDownUnderLoad(t *testing.T) {
	c := cluster.New(t, calm)
	for range rounds() {
		out := once(t, func(ctx context.Context) (*fault.Outcome, error) { return fault.StepDown(ctx, c, fault.Load{}) })
		nothingLost(t, out)
		if failed := out.Report.Failed(""); failed != 0 {
			t.Errorf("%d requests failed, want none", failed)
		}
		if out.Gap > time.Second { // the benchmark holds it against the target of 100 ms
			t.Errorf("gap %v", out.Gap)
		}
		if err := c.WaitHealthy(within(t, 30*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
}

// P5: the same when the active process is ended as planned, for the clients of the other nodes.
func TestStopUnderLoad(t *testing.T) {
	c := cluster.New(t, calm)
	for range rounds() {
		out := once(t, func(ctx context.Context) (*fault.Outcome, error) { return fault.Stop(ctx, c, fault.Load{}) })
		nothingLost(t, out)
		if failed := out.Report.Failed(""); failed != 0 {
			t.Errorf("%d requests failed, want none", failed)
		}
	}
}

// P3, P6: after kill -9 of the active node no GET at the survivors fails and no POST is carried out twice.
func TestCrashUnderLoad(t *testing.T) {
	c := cluster.New(t, cluster.Options{})
	for range rounds() {
		out := once(t, func(ctx context.Context) (*fault.Outcome, error) { return fault.Crash(ctx, c, fault.Load{}) })
		nothingLost(t, out)
		if failed := out.Report.Failed(http.MethodGet); failed != 0 {
			t.Errorf("%d GETs failed, want none", failed)
		}
		if out.Gap > generous*time.Second {
			t.Errorf("gap %v", out.Gap)
		}
	}
}

// P1, P3, P4, P6: a frozen active node is replaced as after a crash; once awake it answers nothing from its own
// state and writes nothing, also not for requests that waited in its sockets.
func TestFreezeUnderLoad(t *testing.T) {
	c := cluster.New(t, cluster.Options{})
	frozen := 6 * time.Second
	if *long {
		frozen = 30 * time.Second
	}
	for range rounds() {
		out := once(t, func(ctx context.Context) (*fault.Outcome, error) { return fault.Freeze(ctx, c, fault.Load{}, frozen) })
		nothingLost(t, out)
		if failed := out.Report.Failed(http.MethodGet); failed != 0 {
			t.Errorf("%d GETs failed at the survivors, want none", failed)
		}
		if out.Gap > generous*time.Second {
			t.Errorf("gap %v", out.Gap)
		}
		w := out.Waiting
		if len(w.Stale)+len(w.Own)+len(w.Twice)+len(w.Lost)+w.Pretends != 0 {
			t.Errorf("the woken node: %v", w)
		}
		if w.OK+w.Refused != w.Sent || w.Later == 0 {
			t.Errorf("requests that waited were not all answered: %v", w)
		}
	}
}

// nothingLost holds for every fault: acknowledged writes are there, none twice, no read is wrong.
func nothingLost(t *testing.T, out *fault.Outcome) {
	t.Helper()
	if len(out.Twice.Twice) != 0 || len(out.Twice.Lost) != 0 {
		t.Errorf("twice %v, lost %v", out.Twice.Twice, out.Twice.Lost)
	}
	for i := range out.Report.Records {
		if wrong := out.Report.Records[i].Wrong; wrong != "" {
			t.Errorf("wrong answer: %+v", out.Report.Records[i])
			break
		}
	}
	if out.Twice.Writes < 100 {
		t.Errorf("only %d writes: the load did not run", out.Twice.Writes)
	}
}
