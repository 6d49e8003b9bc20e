//go:build !plan9

package gpolltest

import "syscall"

// What a socket says when its peer reads no more, or has broken the connection.
const (
	errPipe  = syscall.EPIPE
	errReset = syscall.ECONNRESET
)
