package cluster

import (
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
func Binary() (string, error) { return build() }

var build = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("LOCUM_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	root := Root()
	dir := filepath.Join(root, "bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	args := []string{"build", "-trimpath", "-ldflags", "-s -w"}
	name := "locum-test"
	if os.Getenv("LOCUM_RACE") != "" {
		args, name = append(args, "-race"), name+"-race"
	}
	// Built beside its name and renamed, so that test packages that run at once do not see half a file.
	part := filepath.Join(dir, fmt.Sprintf("%s.%d", name, os.Getpid()))
	cmd := exec.Command("go", append(args, "-o", part, "./cmd/locum")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building locum: %w\n%s", err, strings.TrimSpace(string(out)))
	}
	path := filepath.Join(dir, name)
	return path, os.Rename(part, path)
})

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
