package supervise

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// writeRole replaces the role file in one step: who reads it sees the old role or the new one, and never a part.
func writeRole(path, application, node string, role Role) error {
	if path == "" {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return fmt.Errorf("role file: %w", err)
	}
	_, err = fmt.Fprintf(f, "LOCUM_APPLICATION=%s\nLOCUM_NODE=%s\nLOCUM_ROLE=%s\nLOCUM_TERM=%d\n", application, node, role, role.Term)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("role file: %w", err), os.Remove(f.Name()))
	}
	return nil
}

// removeRole ends what writeRole began.
func removeRole(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("role file: %w", err)
	}
	return nil
}
