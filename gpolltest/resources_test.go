package gpolltest

import (
	"context"
	"net"
	"strings"
	"testing"
)

func TestResourcesAwait(t *testing.T) {
	base := MeasureResources()
	if err := base.Await(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()

	leave := make(chan struct{})
	for range 3 {
		go func() { <-leave }() // ends when leave is closed
	}
	if err := base.Await(over, 3); err != nil {
		t.Errorf("within the slack: %v", err)
	}
	if err := base.Await(over, 1); err == nil || !strings.Contains(err.Error(), "TestResourcesAwait") {
		t.Errorf("three goroutines more: %v", err)
	}
	close(leave)
	if err := base.Await(t.Context(), 0); err != nil {
		t.Error(err)
	}

	if base.Descriptors < 0 {
		t.Skip("this system does not list a process's descriptors")
	}
	var listeners []net.Listener
	for range 20 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, ln)
	}
	if err := base.Await(over, 5); err == nil || !strings.Contains(err.Error(), "descriptors") {
		t.Errorf("twenty sockets more: %v", err)
	}
	for _, ln := range listeners {
		ln.Close()
	}
	if err := base.Await(t.Context(), 1); err != nil { // the network poller keeps one
		t.Error(err)
	}
}
