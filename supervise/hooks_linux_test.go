package supervise

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

// docs/run.md: "the lease is lost: kill → role file → on_standby". What on_active did is taken back although the guardian starts nothing
// under a lease that is over, and whatever becomes of the hooks before.
func TestLostLeaseHooks(t *testing.T) {
	cfg := appConfig(t, "good")
	told := filepath.Join(t.TempDir(), "told")
	cfg.OnStandby = []string{"http://127.0.0.1:1/", "exit 1", "echo $LOCUM_ROLE > " + told}
	a := run(t, cfg)
	guard := cfg.Runner.(Guard)
	grant := physical.Grant{Record: physical.Record{Term: 7}, TTL: time.Minute}
	guard.Lease(grant, boottime.Now().Add(time.Minute))
	if err := a.Activate(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	guard.Lease(grant, boottime.Now()) // over
	a.Kill(errors.New("the lease has expired"))
	if role, err := os.ReadFile(told); string(role) != "standby\n" {
		t.Errorf("told %q, %v", role, err)
	}
	if _, err := start(t, guard, Command{Args: []string{"true"}}); !errors.Is(err, ErrLeaseOver) {
		t.Errorf("a start that is no on_standby: %v", err)
	}
}

// Issue 5, 10: "files on shared storage": what on_active mounts the command sees, and on_standby unmounts it.
func TestHooksMount(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "shared")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Skipf("nothing can be mounted here: %v", err)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }) // an error says that it is not mounted, as it should be
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cfg := appConfig(t, "good") // held together by a PID namespace, as a rule: other than root can mount nothing
	cfg.OnActive = []string{"mount -t tmpfs tmpfs " + dir + " && touch " + dir + "/data"}
	cfg.OnStandby = []string{"umount " + dir}
	cfg.Command = []string{"sh", "-c", "test -e " + dir + "/data || exit 9; exec " + program}
	a := run(t, cfg)
	if err := a.Activate(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir + "/data"); err != nil {
		t.Errorf("this host: %v", err)
	}
	if err := a.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir + "/data"); err == nil {
		t.Error("still mounted")
	}
}
