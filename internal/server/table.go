package server

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"sort"
	"strings"

	"github.com/locum-ha/locum/internal/config"
)

// table prints what the node is, one line each, before the log begins.
func (s *Server) table() {
	rows := map[string]string{
		"Api Address": withReason(s.apiAddr, s.cfg.APIAddrFrom),
		"Node":        s.cfg.NodeName,
		"Seal":        s.cfg.Seal.Type,
		"Storage":     s.cfg.Storage.Type + " " + s.haWords(),
		"Version":     s.opts.Version,
		"Log Level":   s.cfg.LogLevel,
	}
	maps.Copy(rows, s.storeRows())
	if s.ha {
		rows["Cluster Address"] = withReason(s.clusterAddr, s.cfg.ClusterAddrFrom)
	}
	for i := range s.cfg.Applications {
		row := "Application"
		if len(s.cfg.Applications) > 1 {
			row = fmt.Sprintf("Application %d", i+1)
		}
		rows[row] = s.applicationRow(&s.cfg.Applications[i])
	}
	for i, l := range s.listeners {
		rows[fmt.Sprintf("Listener %d", i+1)] = listenerRow(s.cfg.Listeners[i], l.Addr())
	}
	warnings := s.cfg.Warnings
	if s.cache != nil {
		maps.Copy(rows, s.cache.rows)
		warnings = append(slices.Clip(warnings), s.cache.warnings...)
	}
	names := make([]string, 0, len(rows))
	for name := range rows {
		names = append(names, name)
	}
	sort.Strings(names)
	var b strings.Builder
	b.WriteString("==> Locum server configuration:\n\n")
	for _, name := range names {
		fmt.Fprintf(&b, "%24s: %s\n", name, rows[name])
	}
	b.WriteByte('\n')
	for _, warning := range warnings {
		fmt.Fprintf(&b, "warning: %s\n", warning)
	}
	if !s.ha {
		fmt.Fprintf(&b, "warning: storage %q has no high availability: this node runs alone. For a cluster use storage \"raft\".\n", s.cfg.Storage.Type)
	}
	b.WriteString("==> Locum server started! Log data will stream in below:\n\n")
	fmt.Fprint(s.opts.Out, b.String())
}

func listenerRow(c config.Listener, addr net.Addr) string {
	tls := "enabled"
	if c.TLSDisable {
		tls = "disabled"
	}
	row := fmt.Sprintf("%s (addr: %q", addr.Network(), addr)
	if c.ClusterAddress != "" {
		row += fmt.Sprintf(", cluster address: %q", c.ClusterAddress)
	}
	if c.Unix() {
		row += fmt.Sprintf(", mode: %q", c.SocketMode)
	}
	row += fmt.Sprintf(", tls: %q", tls)
	if c.ProxyProtocol {
		row += `, proxy protocol: "enabled"`
	}
	return row + ")"
}

func (s *Server) haWords() string {
	switch {
	case s.ha:
		return "(HA available)"
	case s.unshared:
		return "(HA disabled)"
	}
	return "(HA not supported)"
}

func withReason(addr, from string) string {
	switch {
	case addr == "":
		return "none"
	case from == "":
		return addr
	}
	return addr + " (" + from + ")"
}

// hostOf is the host of a URL.
func hostOf(addr string) string {
	u, err := url.Parse(addr)
	if err != nil {
		return ""
	}
	return u.Hostname()
}
