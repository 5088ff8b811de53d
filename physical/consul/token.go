package consul

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/locum-ha/locum/physical"
)

// tokens gives the token of each request: the one that is given, or the one that stands in a file, which is read again, since
// tokens run out and whoever renews them writes a new one there.
type tokens struct {
	given physical.Secret
	file  string

	mu   sync.Mutex
	last physical.Secret // from the file
	read time.Time
}

// tokenAge is how old what was read from the file may be.
const tokenAge = time.Second

// newTokens reads the file, so that one that is missing is an error at once.
func newTokens(given physical.Secret, file string) (*tokens, error) {
	t := &tokens{given: given, file: file}
	if file == "" {
		return t, nil
	}
	var err error
	t.last, err = readToken(file)
	t.read = time.Now()
	return t, err
}

func readToken(file string) (physical.Secret, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("the file with the token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", errors.New("the file " + file + " with the token is empty")
	}
	return physical.Secret(token), nil
}

// now is the token of this instant. While the file cannot be read, or is being written, it is the one before.
func (t *tokens) now() physical.Secret {
	if t.file == "" {
		return t.given
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.read) >= tokenAge {
		t.read = time.Now()
		if token, err := readToken(t.file); err == nil {
			t.last = token
		}
	}
	return t.last
}
