//go:build !plantbugs

package gpoll

// planted names the bug that the history checker must catch. Without the build tag plantbugs there is none, and the
// compiler removes every place that asks.
const planted = ""
