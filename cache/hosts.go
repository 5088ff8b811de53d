package cache

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// ParseHosts reads a list of nodes as HA_HOSTS and the configuration file have it, "http://app-0.app:8402", and returns them as
// [Config.Hosts] wants them: host:port. The scheme, http or https, does not say whether TLS is used. The error joins all faults.
func ParseHosts(list []string) ([]string, error) {
	var hosts []string
	var errs []error
	seen := map[string]bool{}
	for _, text := range list {
		host, err := parseHost(text)
		switch {
		case err != nil:
			errs = append(errs, err)
		case seen[host]:
			errs = append(errs, fmt.Errorf("%s stands in the list twice: remove one", host))
		default:
			seen[host] = true
			hosts = append(hosts, host)
		}
	}
	return hosts, errors.Join(errs...)
}

func parseHost(text string) (string, error) {
	const fix = `write it such as "http://app-0.app:8402"`
	u, err := url.Parse(text)
	switch {
	case !strings.Contains(text, "://"):
		return "", fmt.Errorf("%q has no scheme: %s", text, fix)
	case err != nil || u.Hostname() == "":
		return "", fmt.Errorf("%q is not a URL: %s", text, fix)
	case u.User != nil:
		return "", errors.New("an entry has a user name or password: remove it") // not quoted: it may be a secret
	case u.Scheme != "http" && u.Scheme != "https":
		return "", fmt.Errorf("%q: the scheme is http or https: %s", text, fix)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("%q has something behind the port: %s", text, fix)
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil || port == 0 {
		return "", fmt.Errorf("%q has no port from 1 to 65535: %s", text, fix)
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.IsUnspecified() {
			return "", fmt.Errorf("%q: nobody can connect to %s: write the name or address under which the other nodes reach it", text, host)
		}
		host = addr.String() // one spelling of an IPv6 address
	}
	return net.JoinHostPort(host, strconv.FormatUint(port, 10)), nil
}

// FindSelf returns the one of the hosts, as [ParseHosts] returns them, that this node is: whose host is name, or name followed by
// a dot. So "app-1" is "app-1.app:8402" and never "app-10.app:8402". A name with a port, "127.0.0.1:8402", means that entry alone:
// for several nodes on one machine. None, or two, is an error that names the name and the list.
func FindSelf(hosts []string, name string) (string, error) {
	want, port := strings.ToLower(strings.TrimSuffix(name, ".")), ""
	if h, p, err := net.SplitHostPort(want); err == nil {
		want, port = strings.TrimSuffix(h, "."), p
	}
	if addr, err := netip.ParseAddr(strings.Trim(want, "[]")); err == nil {
		want = addr.String()
	}
	var found []string
	for _, entry := range hosts {
		host, p, err := net.SplitHostPort(entry)
		if err == nil && (port == "" || p == port) && (host == want || strings.HasPrefix(host, want+".") && !isAddress(want)) {
			found = append(found, entry)
		}
	}
	list := strings.Join(hosts, ", ")
	switch {
	case name == "":
		return "", fmt.Errorf("this machine has no host name, and the list is %s: set HOSTNAME_OVERWRITE", list)
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0:
		return "", fmt.Errorf("the host name %q is not in the list %s: put this node into the list, or set HOSTNAME_OVERWRITE to its entry", name, list)
	}
	return "", fmt.Errorf("the host name %q fits %s of the list %s: set HOSTNAME_OVERWRITE to this node's own entry, host:port", name, strings.Join(found, " and "), list)
}

// isAddress reports whether name is an IP address, of which no beginning is a name.
func isAddress(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}
