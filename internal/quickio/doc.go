// Package quickio reads and writes sockets at less cost than package net: without telling Go's scheduler.
//
// DESIGN. Before a system call Go gets ready for one that blocks, and after a moment of rest that means to wake another thread, which
// watches it: with one request at a time, at each. On a socket none blocks, since all of them are non-blocking and the waiting is
// the network poller's, which stays as it is here. What is lost is that the thread is not replaced while it copies to or
// from the kernel: some microseconds, for as much as a listener writes at once.
package quickio
