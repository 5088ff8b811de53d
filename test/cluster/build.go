package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
)

// Binary builds cmd/locum once per process, as a release is built, and returns its path. LOCUM_BINARY names
// one to use instead; LOCUM_RACE=1 builds with the race detector.
func Binary() (string, error) { return BinaryOf("") }

// BinaryOf is Binary for a program that says of itself that it is of this version; "" is one that says none.
func BinaryOf(version string) (string, error) {
	once, _ := builds.LoadOrStore(version, sync.OnceValues(func() (string, error) { return build(version) }))
	return once.(func() (string, error))()
}

var builds sync.Map // by version

func build(version string) (string, error) {
	if path := os.Getenv("LOCUM_BINARY"); path != "" && version == "" {
		return filepath.Abs(path)
	}
	root := Root()
	dir := filepath.Join(root, "bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	name, ldflags := "locum-test", "-s -w"
	if version != "" {
		name, ldflags = name+"-"+version, ldflags+" -X main.version="+version
	}
	args := []string{"build", "-trimpath", "-ldflags", ldflags}
	if os.Getenv("LOCUM_RACE") != "" {
		args, name = append(args, "-race"), name+"-race"
	}
	// Built beside its name and renamed, so that test packages that run at once do not see half a file.
	path := filepath.Join(dir, name)
	part := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := copyOf(path, part); err != nil {
		return "", err
	}
	cmd := exec.Command("go", append(args, "-o", part, "./cmd/locum")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("building locum: %w\n%s", err, strings.TrimSpace(string(out))), os.Remove(part))
	}
	return path, os.Rename(part, path)
}

// copyOf copies what was built before, if anything was: where nothing has changed since, go does not link it again, which takes seconds.
func copyOf(path, part string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.WriteFile(part, data, 0o755)
}

// Root returns the repository's top folder.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	if !filepath.IsAbs(file) { // built with -trimpath: then the working directory is in test/
		wd, _ := os.Getwd()
		for dir := wd; dir != "/"; dir = filepath.Dir(dir) {
			if _, err := os.Stat(filepath.Join(dir, "cmd", "locum")); err == nil {
				return dir
			}
		}
	}
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}
