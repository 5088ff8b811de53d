// Package apps tests the way of an application's requests through whole nodes: several processes, one application, clients that
// never try twice.
package apps
