package gpolltest

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"
)

// TestMain fails the run when it leaves a goroutine behind.
func TestMain(m *testing.M) {
	baseline := MeasureResources()
	baseline.Descriptors = 1 << 30 // the test binary's own come and go
	code := m.Run()
	if code == 0 {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := baseline.Await(ctx, 0); err != nil {
			fmt.Println("FAIL:", err)
			code = 1
		}
	}
	os.Exit(code)
}
