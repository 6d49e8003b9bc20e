package gpoll

import (
	"runtime"
	"strings"
)

// The places that within looks for: the end of a function's name, without the package.
const (
	inFollow   = ".(*Broadcaster).follow"
	inShutdown = ".(*Broadcaster).shutDown"
	inGroup    = ".(*group).start.func1"
	inRoutine  = ".(*routine).run"
	inHear     = ".(*Client).hear"
	inLogger   = ".logHandler.Handle"
)

// within reports whether the caller of its caller was called, however deep, by that function. It takes microseconds.
func within(place string) bool {
	var pcs [64]uintptr
	for skip := 3; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs[:])
		frames := runtime.CallersFrames(pcs[:n])
		for more := n > 0; more; {
			var frame runtime.Frame
			if frame, more = frames.Next(); strings.HasSuffix(frame.Function, place) {
				return true
			}
		}
		if n < len(pcs) {
			return false
		}
	}
}
