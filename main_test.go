package gpoll_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// TestMain fails the run when it leaves a goroutine behind.
func TestMain(m *testing.M) {
	flag.Parse()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	code := m.Run()
	if code == 0 && !fuzzing() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		if err := gpoll.DefaultBroadcaster.Shutdown(ctx); err != nil {
			fmt.Println("FAIL: DefaultBroadcaster.Shutdown:", err)
			code = 1
		}
		cancel()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		if leaked := leakedGoroutines(5 * time.Second); len(leaked) > 0 {
			fmt.Printf("FAIL: %d goroutines are left at the end:\n\n%s\n", len(leaked), strings.Join(leaked, "\n\n"))
			code = 1
		}
	}
	os.Exit(code)
}

// fuzzing reports whether this process fuzzes: its engine's goroutines are not ours.
func fuzzing() bool {
	for _, name := range []string{"test.fuzz", "test.fuzzworker"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" && f.Value.String() != "false" {
			return true
		}
	}
	return false
}

// leakedGoroutines returns the stacks of the goroutines that are not gone within patience.
func leakedGoroutines(patience time.Duration) []string {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); ; <-ticker.C {
		leaked := otherGoroutines()
		if len(leaked) == 0 || time.Now().After(deadline) {
			return leaked
		}
	}
}

// otherGoroutines returns the stacks of all goroutines except the caller's and those of the runtime and of package
// testing.
func otherGoroutines() []string {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	var others []string
	for _, stack := range strings.Split(string(buf), "\n\n")[1:] {
		switch {
		case strings.Contains(stack, "created by os/signal."),
			strings.Contains(stack, "created by testing."),
			strings.Contains(stack, "created by runtime."),
			strings.Contains(stack, "created by runtime/trace."):
		default:
			others = append(others, stack)
		}
	}
	return others
}
