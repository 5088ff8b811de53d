package stores

import (
	"fmt"
	"strings"

	"github.com/locum-ha/locum/internal/storeserver"
)

// restart is a crash and a start of a server.
func restart(p *storeserver.Process) func() error {
	return func() error {
		p.Kill()
		return p.Start()
	}
}

// PostgreSQL starts a server. It is restarted as planned: what a killed one leaves in shared memory keeps the next from starting
// for a while.
func PostgreSQL(t T) Server {
	p := storeserver.StartPostgreSQL(t)
	return Server{Addr: p.Addr, Restart: p.Restart, Block: func(address string) (string, string) {
		return "postgresql", fmt.Sprintf("  connection_url = %q\n", p.URL(address))
	}}
}

// S3 starts a fake of S3.
func S3(t T) Server {
	f := storeserver.StartFakeS3(t)
	return Server{Addr: strings.TrimPrefix(f.URL, "http://"), Block: func(address string) (string, string) {
		return "s3", fmt.Sprintf("  bucket = %q\n  endpoint = %q\n  region = \"us-east-1\"\n  s3_force_path_style = true\n  access_key = \"key\"\n  secret_key = \"secret\"\n",
			f.Bucket, "http://"+address)
	}}
}
