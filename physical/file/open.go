package file

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

var (
	// ErrInUse: another process has the folder.
	ErrInUse = errors.New("in use by another process (file storage serves one node only)")
	// ErrDamaged: what is in the folder is not a store, or not a whole one.
	ErrDamaged = errors.New("damaged")
	// ErrNewerFormat: a later version of Locum wrote the folder.
	ErrNewerFormat = errors.New("written by a newer version of Locum")
)

// The names in the file. They and the format's number are part of the stored format.
const (
	fileName  = "entries.db"
	newSuffix = ".new-" // of a file that is not whole yet
	format    = 1
)

var (
	entriesBucket = []byte("entries")
	metaBucket    = []byte("meta")
	formatKey     = []byte("format")
	fenceKey      = []byte("fence")
	commitsKey    = []byte("commits") // how many transactions were written, big-endian
)

// openFile opens the store in the folder, or makes a new one there.
func openFile(folder string) (*bolt.DB, error) {
	if folder == "" {
		return nil, errors.New("no path is given")
	}
	if err := makeFolder(folder); err != nil {
		return nil, explain(err)
	}
	name := filepath.Join(folder, fileName)
	_, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		err = create(folder, name)
	}
	if err != nil {
		return nil, explain(err)
	}
	db, err := openBolt(name)
	if err != nil {
		return nil, explain(err)
	}
	if err := db.View(func(tx *bolt.Tx) error { return check(tx, name) }); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	removeLeftovers(folder)
	return db, nil
}

// removeLeftovers removes what a process that was killed while it made a store left of it.
func removeLeftovers(folder string) {
	names, _ := filepath.Glob(filepath.Join(folder, fileName+newSuffix+"*"))
	for _, name := range names {
		_ = os.Remove(name) // it does no harm
	}
}

// makeFolder makes the folder and those above it, and sees to it that they are still there after a power cut.
func makeFolder(folder string) error {
	info, err := os.Stat(folder)
	switch {
	case err == nil && !info.IsDir():
		return errors.New("is not a folder")
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	parent := filepath.Dir(filepath.Clean(folder))
	if err := makeFolder(parent); err != nil {
		return err
	}
	if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFolder(parent)
}

// create makes an empty store under another name and links it to name when it is whole and synced. A process that does the same
// at the same time may win; its store is as empty.
func create(folder, name string) error {
	temporary, err := os.CreateTemp(folder, fileName+newSuffix+"*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temporary.Name()) }()
	if err := temporary.Close(); err != nil {
		return err
	}
	db, err := openBolt(temporary.Name())
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		if _, err := tx.CreateBucket(entriesBucket); err != nil {
			return err
		}
		meta, err := tx.CreateBucket(metaBucket)
		if err != nil {
			return err
		}
		return meta.Put(formatKey, []byte{format})
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := publish(temporary.Name(), name); err != nil {
		return err
	}
	return syncFolder(folder)
}

// publish gives the file its name, if nothing has that name yet.
func publish(temporary, name string) error {
	err := os.Link(temporary, name)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return nil
	}
	if _, taken := os.Stat(name); taken == nil {
		return nil
	}
	return os.Rename(temporary, name) // a file system without links
}

func syncFolder(folder string) error {
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// openBolt opens a bbolt file. On one that is not whole bbolt may fault on memory beyond its end, or
// panic: here, where that would be found first, both become an error.
func openBolt(name string) (db *bolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil {
			db, err = nil, fmt.Errorf("%s is %w: reading it fails: %v", fileName, ErrDamaged, fault)
		}
	}()
	db, err = bolt.Open(name, 0o600, &bolt.Options{Timeout: lockTimeout, FreelistType: bolt.FreelistMapType})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, ErrInUse
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return nil, fmt.Errorf("%s is %w: %w", fileName, ErrDamaged, err)
	}
	return db, err
}

// check makes sure that the file is a store that this version can read, and as long as it says.
func check(tx *bolt.Tx, name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if info.Size() < tx.Size() {
		return fmt.Errorf("%s is %w: %d bytes of %d are left", fileName, ErrDamaged, info.Size(), tx.Size())
	}
	meta := tx.Bucket(metaBucket)
	if meta == nil || tx.Bucket(entriesBucket) == nil {
		return fmt.Errorf("%s is %w: it is not a store of Locum's", fileName, ErrDamaged)
	}
	if found := meta.Get(formatKey); len(found) != 1 || found[0] != format {
		return fmt.Errorf("%s is %w (format %x, this one knows %d)", fileName, ErrNewerFormat, found, format)
	}
	return nil
}

// commits returns the number of the last transaction that was written.
func commits(tx *bolt.Tx) uint64 {
	if n := tx.Bucket(metaBucket).Get(commitsKey); len(n) == 8 {
		return binary.BigEndian.Uint64(n)
	}
	return 0
}

// explain adds to an error of the operating system what can be done about it.
func explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w (the folder and what is in it must belong to the user that runs Locum)", err)
	case errors.Is(err, errFull):
		return fmt.Errorf("%w (make room on the disk; nothing that was stored is lost)", err)
	case strings.Contains(err.Error(), "read-only file system"):
		return fmt.Errorf("%w (file storage needs a folder that it can write to)", err)
	}
	return err
}
