//go:build linux && !386 && !s390x

package socket

import "syscall"

// They cost a few percent less than write and read, which know of files too.
const (
	sysSend    = syscall.SYS_SENDTO
	sysReceive = syscall.SYS_RECVFROM
)
