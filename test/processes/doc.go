// Package processes tests the life of applications under whole nodes: real processes that are killed, frozen, or refuse, and
// whose instances note every few milliseconds that they run, so that two at a time are seen (P2).
package processes
