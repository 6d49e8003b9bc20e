//go:build !plantbugs

package gpoll

// planted names the bug that the history checker must catch. Without the build tag plantbugs there is none, and the
// compiler removes every place that asks.
const planted = ""

type plantedCursor struct{}

func plantRecord(*record)                        {}
func plantGap(*Gap, *record) bool                { return true }
func plantBatch(_ *attach, got []item) []item    { return got }
func plantCursor(_ *Client, p Position) Position { return p }
func plantRead(*attach)                          {}
