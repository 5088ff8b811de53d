package listener

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"time"
)

// Socket is how the file of a Unix socket looks.
type Socket struct {
	Mode        fs.FileMode // permissions; who may write may connect
	User, Group string      // names or numbers; "": the process's own
}

// socketFile is the file of a Unix socket, removed at the end unless somebody else's stands there by then.
type socketFile struct {
	path string
	made fs.FileInfo
}

// listenUnix makes the socket under another name, gives it owner and mode, and then its name: at no instant can somebody
// connect who may not. A file that a node left behind is replaced; a socket that somebody listens on is not.
func listenUnix(path string, s Socket) (net.Listener, *socketFile, error) {
	if err := stale(path); err != nil {
		return nil, nil, err
	}
	uid, gid, err := s.owner()
	if err != nil {
		return nil, nil, err
	}
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	ln.SetUnlinkOnClose(false)
	made, err := place(fresh, path, s.Mode, uid, gid)
	if err != nil {
		return nil, nil, errors.Join(err, ln.Close(), os.Remove(fresh))
	}
	return ln, &socketFile{path, made}, nil
}

func place(fresh, path string, mode fs.FileMode, uid, gid int) (fs.FileInfo, error) {
	if uid >= 0 || gid >= 0 {
		if err := os.Chown(fresh, uid, gid); err != nil {
			return nil, fmt.Errorf("socket_user, socket_group: %w", err)
		}
	}
	if err := os.Chmod(fresh, mode); err != nil {
		return nil, fmt.Errorf("socket_mode: %w", err)
	}
	made, err := os.Lstat(fresh)
	if err != nil {
		return nil, err
	}
	return made, os.Rename(fresh, path)
}

// stale returns nil if path may be replaced.
func stale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is no socket: it is left alone", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return errors.Join(fmt.Errorf("%s is in use: another process listens there", path), c.Close())
	}
	return nil
}

// remove takes the file away if it is still the one that was made.
func (f *socketFile) remove() error {
	if f == nil {
		return nil
	}
	now, err := os.Lstat(f.path)
	if err != nil || !os.SameFile(f.made, now) {
		return nil // somebody has removed or replaced it
	}
	return os.Remove(f.path)
}

// owner returns the ids, -1 for one that is not to be changed.
func (s Socket) owner() (uid, gid int, err error) {
	uid, gid = -1, -1
	if s.User != "" {
		if uid, err = lookup(s.User, func(name string) (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		}); err != nil {
			return 0, 0, fmt.Errorf("socket_user: %w", err)
		}
	}
	if s.Group != "" {
		if gid, err = lookup(s.Group, func(name string) (string, error) {
			g, err := user.LookupGroup(name)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		}); err != nil {
			return 0, 0, fmt.Errorf("socket_group: %w", err)
		}
	}
	return uid, gid, nil
}

// lookup takes a number as it is, and looks a name up.
func lookup(name string, find func(string) (string, error)) (int, error) {
	text := name
	if _, err := strconv.Atoi(name); err != nil {
		if text, err = find(name); err != nil {
			return 0, err
		}
	}
	return strconv.Atoi(text)
}
