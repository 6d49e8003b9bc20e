//go:build plantbugs

package gpoll

import "os"

// planted names the bug that the history checker must catch in this run.
var planted = os.Getenv("GPOLL_PLANT")
