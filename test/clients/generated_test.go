package clients

import (
	"os"
	"os/exec"
	"testing"
)

// openbao_test.go is what vault_test.go makes of it: both libraries are driven through the same calls.
func TestGenerated(t *testing.T) {
	want, err := exec.CommandContext(t.Context(), "sed", "-f", "testdata/openbao.sed", "vault_test.go").Output()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("openbao_test.go")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Error("openbao_test.go is not what vault_test.go makes of it: run go generate ./clients in test/")
	}
}
