//go:build !plantbugs

package gpoll

// planted names the bug that the history checker must catch. Without the build tag plantbugs there is none, and the
// compiler removes every place that asks.
const planted = ""

type plantedCursor struct{}

func plantRecord(*record)                        {}
func plantGap(*Gap, *record) bool                { return true }
func plantBatch(_ *attach, got []item) []item    { return got }
func plantCursor(c *Client, p Position) Position { _ = c.planted; return p }
func plantRead(*attach)                          {}
