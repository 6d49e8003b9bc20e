package gpoll

import (
	"io"
	"net/http"
	"time"
)

// How much is written at a time through net/http. It is also what a client has to take in WriteTimeout.
const netHTTPPiece = 32 << 10

// A deadlineSetter gives the next piece that goes out through net/http its time.
type deadlineSetter interface{ beforePiece() }

// writePieces writes p through net/http.
func writePieces(w io.Writer, p string, each deadlineSetter) error {
	for {
		n := min(len(p), netHTTPPiece)
		each.beforePiece()
		if _, err := io.WriteString(w, p[:n]); err != nil {
			return err
		}
		if p = p[n:]; p == "" {
			return nil
		}
	}
}

// everyPiece gives WriteTimeout to each piece that goes out through w. Behind a wrapper without Unwrap the server's own
// time-out stays in force.
type everyPiece struct {
	w       http.ResponseWriter
	timeout time.Duration
}

func (e *everyPiece) beforePiece() {
	_ = http.NewResponseController(e.w).SetWriteDeadline(time.Now().Add(e.timeout))
}

// noDeadline leaves the deadlines alone: for an answer that is shorter than what a socket takes.
type noDeadline struct{}

func (noDeadline) beforePiece() {}
