package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sys/unix"

	"github.com/corvuscrypto/gpoll/internal/load/serve"
)

// silentClients is how many WebSockets that never read are added.
const silentClients = 100

// silentTurns is how often the server is measured without and with them, in turns.
const silentTurns = 3

// silent measures the time of the call that publishes while the engine's clients are attached, and silentClients more
// that never read. The messages for those stay in the server.
func (m *meter) silent(c cell) error {
	if m.bench.silent <= 0 || c.kind != webSocket || c.clients < 10*silentClients {
		return nil
	}
	// The publisher gives way after each message, as a request handler does by ending.
	cmd := serve.Command{Do: "saturated", For: m.bench.silent / (2 * silentTurns), Window: m.bench.window, Timed: true}
	var without, with []time.Duration
	for range silentTurns {
		for _, n := range []int{0, silentClients} {
			sends, err := m.amongSilent(n, cmd)
			if err != nil {
				return err
			}
			if n == 0 {
				without = append(without, sends...)
			} else {
				with = append(with, sends...)
			}
		}
	}
	m.out.SendUS, m.out.SilentUS = percentile99(without), percentile99(with)
	return nil
}

// percentile99 is in microseconds.
func percentile99(d []time.Duration) float64 {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return float64(d[(len(d)*99+99)/100-1].Nanoseconds()) / 1000
}

// amongSilent publishes while so many clients are attached that never read, and returns how long each message took.
func (m *meter) amongSilent(silent int, cmd serve.Command) ([]time.Duration, error) {
	var conns []*websocket.Conn
	defer func() {
		for _, conn := range conns {
			_ = conn.Close() // what it has not read goes with it
		}
	}()
	dialer := websocket.Dialer{NetDial: (&net.Dialer{Control: small}).Dial}
	for range silent {
		conn, _, err := dialer.Dial("ws://"+m.process.Addr+"/poll/ws?client-id=0", nil)
		if err != nil {
			return nil, fmt.Errorf("a client that does not read: %w", err)
		}
		conns = append(conns, conn)
	}
	fill := serve.Command{Do: "saturated", For: 200 * time.Millisecond, Window: 8 * cmd.Window, Greedy: true}
	for tries := 1; ; tries++ {
		if _, err := m.publish(fill); err != nil {
			return nil, err
		}
		n, err := blocked(conns)
		if err != nil {
			return nil, err
		}
		if n == silent {
			break
		}
		if tries == 10 {
			return nil, fmt.Errorf("%d of %d clients that do not read still take what is written to them", silent-n, silent)
		}
	}
	if _, err := m.publish(cmd); err != nil {
		return nil, err
	}
	sends := m.process.Sends
	if n, err := blocked(conns); err != nil || n < silent {
		return nil, errors.Join(err,
			fmt.Errorf("%d of %d clients that do not read were disconnected meanwhile", silent-n, silent))
	}
	return sends, nil
}

// small makes a socket for which the kernel holds little. It sets a narrow window, and segments as on a network,
// because a sender's buffer grows with them. Over the loopback that buffer would be megabytes.
func small(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 536))
	})
	return errors.Join(err, failed)
}

// blocked counts the connections whose other end, on this machine, is open and holds bytes that it cannot send.
func blocked(conns []*websocket.Conn) (n int, err error) {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return 0, err
	}
	// The kernel prints lines such as "0100007F:1F90 0100007F:D2AA 01 0000A3F0:00000000": local, remote, state, bytes
	// that wait to be sent.
	waiting := map[string]bool{}
	for line := range bytes.Lines(table) {
		if f := bytes.Fields(line); len(f) > 4 && string(f[3]) == "01" && !bytes.HasPrefix(f[4], []byte("00000000:")) {
			waiting[string(f[1])+" "+string(f[2])] = true
		}
	}
	for _, conn := range conns {
		if waiting[endpoint(conn.RemoteAddr())+" "+endpoint(conn.LocalAddr())] {
			n++
		}
	}
	return n, nil
}

// endpoint writes an address as /proc/net/tcp does on a little-endian machine.
func endpoint(a net.Addr) string {
	t := a.(*net.TCPAddr) // of a connection that this program dialled
	ip := slices.Clone(t.IP.To4())
	slices.Reverse(ip)
	return fmt.Sprintf("%s:%04X", bytes.ToUpper([]byte(hex.EncodeToString(ip))), t.Port)
}
