//go:build unix && !linux

package socket

import "syscall"

// writeOnce tries write(2) on a socket that does not block: 0 bytes when it is full.
func writeOnce(fd int, p []byte) (int, error) {
	n, err := once(syscall.Write, fd, p)
	if err == syscall.EAGAIN {
		return 0, nil
	}
	return n, err
}

// readOnce tries read(2) on a socket that does not block: EAGAIN when there is nothing.
func readOnce(fd int, p []byte) (int, error) { return once(syscall.Read, fd, p) }

func once(call func(int, []byte) (int, error), fd int, p []byte) (int, error) {
	for {
		n, err := call(fd, p)
		if err == nil {
			return n, nil
		}
		if err != syscall.EINTR {
			return 0, err
		}
	}
}
