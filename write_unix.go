//go:build unix && !linux

package gpoll

import "syscall"

// writeOnce tries write(2) on a socket that does not block: 0 bytes when it is full.
func writeOnce(fd int, p []byte) (int, error) {
	for {
		n, err := syscall.Write(fd, p)
		switch err {
		case nil:
			return n, nil
		case syscall.EAGAIN:
			return 0, nil
		case syscall.EINTR:
		default:
			return 0, err
		}
	}
}
