package config

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
)

// Migration is what "locum operator migrate" reads: where the entries are, and where they shall be.
type Migration struct {
	// Source is the data store with the entries.
	Source Storage `hcl:"storage_source,block"`

	// Destination is the data store that gets them. It must be empty.
	Destination Storage `hcl:"storage_destination,block"`

	// NodeName and ClusterAddr are those of the first node of a destination "raft".
	NodeName    string `hcl:"node_name"`
	ClusterAddr string `hcl:"cluster_addr"`
}

// ReadMigration reads one file and checks it. The error is a [Faults], or tells that the file cannot be read.
func ReadMigration(path string) (*Migration, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m := &Migration{}
	c := Default()
	d := &decoder{where: c.where, source: map[string][]byte{path: data}}
	parser := hclparse.NewParser()
	var file *hcl.File
	var diags hcl.Diagnostics
	if strings.HasSuffix(path, ".json") {
		file, diags = parser.ParseJSON(data, path)
	} else {
		file, diags = parser.ParseHCL(data, path)
	}
	d.diagnostics(diags)
	if file != nil && !diags.HasErrors() {
		d.body(file.Body, reflect.ValueOf(m).Elem(), "")
	}
	if err := d.faults.err(); err != nil {
		return nil, err
	}
	check := &checker{Config: c}
	check.migrated("storage_source", m.Source)
	check.migrated("storage_destination", m.Destination)
	if m.Destination.Type == "raft" {
		if err := checkURL(m.ClusterAddr, "https"); err != nil {
			check.fault("cluster_addr", err.Error(), `write that of the node that starts first: "https://a.example.com:8401"`)
		}
		if !nodeName.MatchString(m.NodeName) {
			check.fault("node_name", "missing", "write that of the node that starts first")
		}
	}
	return m, check.faults.err()
}

// migrated checks one of the two blocks.
func (c *checker) migrated(path string, s Storage) {
	entries := storeNames(false)
	switch {
	case s.Type == "":
		c.fault(path, "missing", "write the storage block of a node's configuration under this name")
	case s.Type == "inmem":
		c.fault(path, `"inmem" forgets its entries`, "name another store")
	case !slices.Contains(entries, s.Type):
		c.fault(path, fmt.Sprintf("%q keeps no entries, or is not known", s.Type), "write "+either(entries))
	case s.Type == "raft" && s.Raft.Path == "", s.Type == "file" && s.File.Path == "":
		c.fault(path+".path", "missing", "write the data directory")
	default:
		c.shared(path, s)
	}
}
