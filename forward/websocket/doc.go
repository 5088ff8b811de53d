// Package websocket knows of the WebSocket protocol (RFC 6455) what a proxy needs that has to end a connection in the
// protocol's own words: where one frame ends and the next begins, and what a close frame looks like. It reads no
// payload and checks nothing that is between the two ends.
package websocket
