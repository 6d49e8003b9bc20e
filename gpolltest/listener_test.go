package gpolltest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestPipeCarriesBothWays(t *testing.T) {
	a, b := Pipe(7) // smaller than what is sent, so that the ring wraps at every place
	rnd := rand.New(rand.NewPCG(1, 2))
	sent := make([]byte, 10_000)
	for i := range sent {
		sent[i] = byte(rnd.Uint32())
	}
	var wg sync.WaitGroup
	for _, ends := range [][2]*Conn{{a, b}, {b, a}} {
		wg.Go(func() {
			for rest := sent; len(rest) > 0; {
				n := min(len(rest), 1+len(rest)%13)
				if wrote, err := ends[0].Write(rest[:n]); wrote != n || err != nil {
					t.Errorf("Write: %d of %d, %v", wrote, n, err)
					return
				}
				rest = rest[n:]
			}
			ends[0].CloseWrite()
		})
		wg.Go(func() {
			got, err := io.ReadAll(io.MultiReader(io.LimitReader(ends[1], 5), ends[1]))
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("read %d of %d bytes, equal: %v, %v", len(got), len(sent), bytes.Equal(got, sent), err)
			}
		})
	}
	wg.Wait()
}

func TestPipeHalfClose(t *testing.T) {
	a, b := Pipe(0)
	io.WriteString(a, "question")
	a.CloseWrite()
	if got, err := io.ReadAll(b); string(got) != "question" || err != nil {
		t.Fatalf("the peer reads %q, %v", got, err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, errPipe) {
		t.Errorf("Write after CloseWrite: %v", err)
	}
	io.WriteString(b, "answer")
	b.Close()
	if got, err := io.ReadAll(a); string(got) != "answer" || err != nil {
		t.Fatalf("after CloseWrite: read %q, %v", got, err)
	}
}

func TestPipeClose(t *testing.T) {
	a, b := Pipe(0)
	io.WriteString(a, "last words")
	io.WriteString(b, "unread")
	a.Close()
	a.Close()
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("own Read: %v", err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("own Write: %v", err)
	}
	if got, err := io.ReadAll(b); string(got) != "last words" || err != nil {
		t.Errorf("the peer reads %q, %v", got, err)
	}
	if _, err := b.Write([]byte("x")); !errors.Is(err, errPipe) {
		t.Errorf("the peer's Write: %v", err)
	}
}

func TestPipeCut(t *testing.T) {
	a, b := Pipe(0)
	io.WriteString(a, "lost")
	a.Cut()
	for name, c := range map[string]*Conn{"own": a, "peer's": b} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, errReset) {
			t.Errorf("%s Read: %v", name, err)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, errReset) {
			t.Errorf("%s Write: %v", name, err)
		}
	}
}

func TestPipeFullBufferBlocksWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe(10)
		wrote := 0
		go func() { // ends when everything is written
			n, err := a.Write(make([]byte, 25))
			if err != nil {
				t.Error(err)
			}
			wrote = n
		}()
		for _, read := range []int{10, 10} {
			synctest.Wait()
			if wrote != 0 {
				t.Fatal("Write returned while its bytes did not fit")
			}
			io.ReadFull(b, make([]byte, read))
		}
		synctest.Wait()
		if wrote != 25 {
			t.Errorf("Write returned %d", wrote)
		}
	})
}

func TestPipeDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe(10)
		start := time.Now()
		a.SetDeadline(start.Add(3 * time.Second))
		_, err := a.Read(make([]byte, 1))
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("Read ended after %v: %v", time.Since(start), err)
		}
		if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
			t.Errorf("%v is no timeout", err)
		}
		synctest.Wait() // the two deadlines are two timers
		if _, err := a.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write after the deadline: %v", err)
		}

		// A write that does not fit reports what it wrote.
		a.SetWriteDeadline(time.Now().Add(time.Second))
		if n, err := a.Write(make([]byte, 12)); n != 10 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write: %d, %v", n, err)
		}

		// A deadline that is moved while somebody waits counts from then on.
		a.SetReadDeadline(time.Time{})
		start = time.Now()
		time.AfterFunc(time.Second, func() { a.SetReadDeadline(start.Add(5 * time.Second)) })
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 5*time.Second {
			t.Errorf("Read ended after %v: %v", time.Since(start), err)
		}

		// Past, then none.
		a.SetReadDeadline(time.Now().Add(-time.Hour))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("past deadline: %v", err)
		}
		a.SetReadDeadline(time.Time{})
		io.WriteString(b, "x")
		if n, err := a.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("without deadline: %d, %v", n, err)
		}
	})
}

func TestListenerServesHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := NewListener()
		ln.Buffer = 100
		body := strings.Repeat("0123456789", 1000)
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select { // an hour of fake time
			case <-time.After(time.Hour):
			case <-r.Context().Done():
			}
			io.WriteString(w, body)
		})}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(ln) }() // ends with srv.Close
		client := ln.Client()
		start := time.Now()
		resp, err := client.Get("http://any.test/")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(got) != body || err != nil || time.Since(start) != time.Hour {
			t.Errorf("%d bytes, %v, after %v", len(got), err, time.Since(start))
		}

		// A cut reaches a waiting request, and the next one gets a new connection.
		time.AfterFunc(time.Minute, ln.Cut)
		post := strings.NewReader("a GET would be sent again")
		if _, err := client.Post("http://any.test/", "text/plain", post); !errors.Is(err, errReset) {
			t.Errorf("cut request: %v", err)
		}
		if resp, err := client.Get("http://any.test/"); err != nil {
			t.Error(err)
		} else {
			resp.Body.Close()
		}
		client.CloseIdleConnections()
		srv.Close()
		if err := <-served; err != http.ErrServerClosed {
			t.Error(err)
		}
	})
}

func TestListenerClosed(t *testing.T) {
	ln := NewListener()
	waiting, err := ln.DialContext(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	ln.Close()
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
	if _, err := ln.DialContext(t.Context(), "", ""); !errors.Is(err, net.ErrClosed) {
		t.Errorf("DialContext: %v", err)
	}
	if _, err := waiting.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a connection that was never accepted: %v", err)
	}
}

func TestListenerDialEndsWithContext(t *testing.T) {
	ln := NewListener()
	defer ln.Close()
	for range cap(ln.backlog) {
		if _, err := ln.DialContext(t.Context(), "", ""); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ln.DialContext(ctx, "", ""); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
