package storeserver

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
)

// StartHTTP2 serves a fake over TLS to clients that speak HTTP/2 and to those that do not, at "host:port", under an authority whose
// certificate lies in caFile. It ends with the test.
func StartHTTP2(t T, fake http.Handler) (addr, caFile string) {
	t.Helper()
	server := httptest.NewUnstartedServer(fake)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	caFile = filepath.Join(t.TempDir(), "ca.crt")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(caFile, text, 0o600); err != nil {
		t.Fatalf("authority: %v", err)
	}
	return server.Listener.Addr().String(), caFile
}
