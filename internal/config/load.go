package config

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
)

// Source is everything that a configuration is made of. The zero value is the environment and this host, without a file.
type Source struct {
	// Paths are files, or directories whose *.hcl and *.json files are read in the order of their names.
	Paths []string

	// AdvertiseAddr is the flag -cluster-advertise-addr, another name for api_addr.
	AdvertiseAddr string

	// LookupEnv reads the environment. Default: os.LookupEnv.
	LookupEnv func(string) (string, bool)

	// Hostname is this host's name. Default: os.Hostname.
	Hostname func() (string, error)

	// Addresses are this host's own, in the order of its interfaces. Default: those of the interfaces that are up.
	Addresses func() ([]netip.Addr, error)

	// StoreAddress asks a data store of the configuration that knows this host's address, where no address was given;
	// from says which one answered. own are this host's addresses. Default: none is asked.
	StoreAddress func(c *Config, own []netip.Addr) (host, from string, ok bool)
}

func (s Source) withDefaults() Source {
	if s.LookupEnv == nil {
		s.LookupEnv = os.LookupEnv
	}
	if s.Hostname == nil {
		s.Hostname = os.Hostname
	}
	if s.Addresses == nil {
		s.Addresses = hostAddresses
	}
	return s
}

// Load reads, completes and checks a configuration. The error is a [Faults] with everything that is wrong, or tells
// that a file cannot be read.
func Load(source Source) (*Config, error) {
	c, err := Read(source.Paths...)
	if err != nil {
		return nil, err
	}
	if err := c.Complete(source); err != nil {
		return nil, err
	}
	return c, nil
}

// Read reads and merges files, without the environment, defaults for what depends on this host, or checks.
func Read(paths ...string) (*Config, error) {
	c := Default()
	d := &decoder{where: c.where, source: map[string][]byte{}}
	parser := hclparse.NewParser()
	for _, path := range paths {
		files, err := expand(path)
		if err != nil {
			return nil, err
		}
		for _, name := range files {
			data, err := os.ReadFile(name)
			if err != nil {
				return nil, fmt.Errorf("reading the configuration: %w", err)
			}
			d.file(parser, name, data, c)
		}
	}
	if err := d.faults.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// Parse reads one configuration from memory, as Read does from a file. A name ending in .json is JSON.
func Parse(name string, data []byte) (*Config, error) {
	c := Default()
	d := &decoder{where: c.where, source: map[string][]byte{}}
	d.file(hclparse.NewParser(), name, data, c)
	if err := d.faults.err(); err != nil {
		return nil, err
	}
	return c, nil
}

func (d *decoder) file(parser *hclparse.Parser, name string, data []byte, c *Config) {
	d.source[name] = data
	var file *hcl.File
	var diags hcl.Diagnostics
	if strings.HasSuffix(name, ".json") {
		file, diags = parser.ParseJSON(data, name)
	} else {
		file, diags = parser.ParseHCL(data, name)
	}
	d.diagnostics(diags)
	if file != nil && !diags.HasErrors() {
		d.body(file.Body, reflect.ValueOf(c).Elem(), "")
	}
}

// expand lists the files of a path.
func expand(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	var files []string
	for _, pattern := range []string{"*.hcl", "*.json"} {
		found, err := filepath.Glob(filepath.Join(path, pattern))
		if err != nil {
			return nil, fmt.Errorf("reading the configuration: %w", err)
		}
		files = append(files, found...)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("reading the configuration: %s has no file that ends in .hcl or .json", path)
	}
	slices.Sort(files)
	return files, nil
}

// hostAddresses lists the addresses of the interfaces that are up, in their order.
func hostAddresses() ([]netip.Addr, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("listing network interfaces: %w", err)
	}
	var all []netip.Addr
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it went away in between
		}
		for _, a := range addrs {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				all = append(all, prefix.Addr())
			}
		}
	}
	return all, nil
}
