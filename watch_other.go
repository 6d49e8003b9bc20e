//go:build !linux

package gpoll

// A watch is nothing here: each connection that is kept has a goroutine.
type watch struct{}

func (*watch) add(*pollConn) bool { return false }
func (*watch) remove(*pollConn)   {}
func (*watch) close()             {}
