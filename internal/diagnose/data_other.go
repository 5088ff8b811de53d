//go:build !unix

package diagnose

import "os"

const locksKnown = false

func canWrite(dir string) error {
	f, err := os.CreateTemp(dir, ".diagnose-*")
	if err != nil {
		return err
	}
	_ = f.Close()
	return os.Remove(f.Name())
}

func ownerOf(os.FileInfo) (uid int, known bool)       { return 0, false }
func lockedBy(string) int                             { return 0 }
func spaceOf(string) (free, total uint64, known bool) { return 0, 0, false }
