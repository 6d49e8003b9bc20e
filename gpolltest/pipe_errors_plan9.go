package gpolltest

import "errors"

// Plan 9 has no numbers for errors.
var (
	errPipe  = errors.New("broken pipe")
	errReset = errors.New("connection reset by peer")
)
