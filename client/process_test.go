package client_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/corvuscrypto/gpoll"
)

const isServer = "GPOLL_CLIENT_TEST_SERVER"

// serveProcess is what this program is when serverProcess starts it: a server that ends with its standard input.
func serveProcess() {
	b := gpoll.NewBroadcaster()
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("http://" + ln.Addr().String() + "/poll")
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println(http.Serve(ln, mux))
	os.Exit(1)
}

// serverProcess starts a server in a process of its own and returns its address.
func serverProcess(t testing.TB) string {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), isServer+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(address, err)
	}
	return strings.TrimSpace(address)
}
