// Package stores opens the data stores that a configuration names. It is the one place that knows them all: the commands
// hand [Open] to a node, which itself knows none of them.
//
// # DESIGN
//
// One file per store maps the block of internal/config to the store's own Config and calls its Open, and one line in
// the table known names it. So a program that embeds Locum, and names its store itself, links that one alone.
package stores
