package supervise

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/locum-ha/locum/internal/boottime"
)

// bootTimer is a timer of the kernel's own on CLOCK_BOOTTIME: it goes off also when the machine was suspended meanwhile, which
// Go's timers do not notice.
type bootTimer struct {
	fd   int
	file *os.File
	C    chan struct{} // gets a value each time it goes off
}

func newBootTimer() (*bootTimer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("timerfd: %w", err)
	}
	t := &bootTimer{fd: fd, file: os.NewFile(uintptr(fd), "timerfd"), C: make(chan struct{}, 1)}
	go func() {
		var count [8]byte
		for {
			if _, err := t.file.Read(count[:]); err != nil {
				return // closed
			}
			if binary.NativeEndian.Uint64(count[:]) > 0 {
				select {
				case t.C <- struct{}{}:
				default: // one is enough: whoever takes it looks at the clock
				}
			}
		}
	}()
	return t, nil
}

// set lets it go off at an instant; 0 lets it rest.
func (t *bootTimer) set(at boottime.Instant) error {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(at))}
	if err := unix.TimerfdSettime(t.fd, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
		return fmt.Errorf("timerfd: %w", err)
	}
	return nil
}

func (t *bootTimer) close() { _ = t.file.Close() }
