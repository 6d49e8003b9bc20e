//go:build 386 || s390x

package socket

import "syscall"

// Here send and recv have no system call of their own.
const (
	sysSend    = syscall.SYS_WRITE
	sysReceive = syscall.SYS_READ
)
