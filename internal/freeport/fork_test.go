package freeport

import (
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"
)

// A port that was looked at is free at once, also while the process starts others, which have all descriptors of their
// parent until they run their own program.
func TestFreeWhileProcessesStart(t *testing.T) {
	if os.Getenv("GPOLL_FREEPORT_CHILD") != "" {
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var starting sync.WaitGroup
	for range 2 {
		starting.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				child := exec.Command(self, "-test.run", "^TestFreeWhileProcessesStart$")
				child.Env = append(os.Environ(), "GPOLL_FREEPORT_CHILD=1")
				if err := child.Run(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 3000 {
		ln, err := net.Listen("tcp", Address(t))
		if err != nil {
			t.Error(err)
			continue
		}
		ln.Close()
	}
	close(stop)
	starting.Wait()
}
