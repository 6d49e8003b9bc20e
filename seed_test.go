package gpoll_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/corvuscrypto/gpoll/internal/needs"
)

// The two programs in the documents of the 2015 package (README and package doc) build unmodified and do as these say.
func TestSeedPrograms(t *testing.T) {
	const address = "127.0.0.1:8080" // the programs say :8080
	for _, name := range []string{"seed-readme", "seed-godoc"} {
		t.Run(name, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), name)
			if out, err := exec.Command("go", "build", "-o", program, "./testdata/"+name).CombinedOutput(); err != nil {
				t.Fatalf("go build: %v\n%s", err, out)
			}
			if c, err := net.Dial("tcp", address); err == nil {
				c.Close()
				needs.Lacks(t, "something else listens on "+address+", where the 2015 program must")
			}
			ctx, cancel := context.WithCancel(t.Context())
			var output bytes.Buffer
			cmd := exec.CommandContext(ctx, program)
			cmd.Stdout, cmd.Stderr = &output, &output
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			exited := make(chan error, 1)
			go func() { exited <- cmd.Wait() }() // ends with the program
			defer func() {
				cancel()
				<-exited
				if t.Failed() {
					t.Logf("the program said: %s", output.Bytes())
				}
			}()

			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			s := &server{url: "http://" + address, client: &http.Client{Transport: transport}}
			await(t, "the program listens", func() bool {
				select {
				case err := <-exited:
					exited <- err
					t.Fatalf("the program ended: %v", err)
				default:
				}
				c, err := net.Dial("tcp", address)
				if err == nil {
					c.Close()
				}
				return err == nil
			})
			const path = "/path/to/listen/on"
			for _, register := range []string{path, path + "?client-id=0"} {
				a := s.get(t, register)
				if a.status != http.StatusOK {
					t.Fatalf("register: %d %s", a.status, a.body)
				}
				id := idOf(t, a.body)
				if a.body != fmt.Sprintf(`{"client-id":%q}`, id) || !clientIDForm.MatchString(id) {
					t.Errorf("registration %s", a.body)
				}
				for range 2 {
					polled := s.later(t, path+query("client-id", id))
					if a := s.get(t, "/send"); a.status != http.StatusOK {
						t.Fatalf("/send: %d %s", a.status, a.body)
					}
					if a := <-polled; a.status != http.StatusOK || a.body != "blah blah blah" {
						t.Errorf("poll: %d %q", a.status, a.body)
					}
				}
			}
			if a := s.get(t, path+"?client-id=0$6ba7b811-9dad-41d1-80b4-00c04fd430c8"); a.status != http.StatusNotFound {
				t.Errorf("improper id: %d %s", a.status, a.body)
			}
		})
	}
}
