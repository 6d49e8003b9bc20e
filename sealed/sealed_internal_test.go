package sealed

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write testdata/vectors.json anew")

// A vector is for other implementations, too. Fields with Hex are bytes.
type vector struct {
	Name       string `json:"name"`
	KeyHex     string `json:"key"`
	TimeMS     int64  `json:"time_ms"`
	NonceHex   string `json:"nonce"`
	Topic      string `json:"topic"`
	DataHex    string `json:"data"`
	PayloadHex string `json:"payload"`
}

const vectorFile = "testdata/vectors.json"

// The vectors were made by this package once, and opened by Node.js with OpenSSL's AES-256-GCM and HKDF.
func TestVectors(t *testing.T) {
	text, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	for i := range vectors {
		v := &vectors[i]
		t.Run(v.Name, func(t *testing.T) {
			b, err := New(unhex(t, v.KeyHex))
			if err != nil {
				t.Fatal(err)
			}
			payload := b.seal(v.Topic, unhex(t, v.DataHex), time.UnixMilli(v.TimeMS), [nonceSize]byte(unhex(t, v.NonceHex)))
			if *update {
				v.PayloadHex = hex.EncodeToString(payload)
			}
			if got := hex.EncodeToString(payload); got != v.PayloadHex {
				t.Errorf("sealed: %s, want %s", got, v.PayloadHex)
			}
			data, err := b.Open(v.Topic, unhex(t, v.PayloadHex))
			if got := hex.EncodeToString(data); err != nil || got != v.DataHex {
				t.Errorf("opened: %s, %v, want %s", got, err, v.DataHex)
			}
		})
	}
	if len(vectors) < 5 {
		t.Errorf("there are %d vectors", len(vectors))
	}
	if *update {
		text, err := json.MarshalIndent(vectors, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(vectorFile, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What an Opener has forgotten counts as seen.
func TestOpenerForgets(t *testing.T) {
	b, err := New([]byte(strings.Repeat("0123456789abcdef", 2)))
	if err != nil {
		t.Fatal(err)
	}
	o := b.NewOpener()
	sealedAt := func(ms int) []byte {
		return b.seal("", nil, time.UnixMilli(int64(ms)), [nonceSize]byte{byte(ms), byte(ms >> 8), byte(ms >> 16)})
	}
	open := func(ms int, want error) {
		t.Helper()
		if _, err := o.Open("", sealedAt(ms)); err != want {
			t.Errorf("the payload of %d: %v, want %v", ms, err, want)
		}
	}
	const first = 1000
	for ms := first; ms < first+remembered; ms++ {
		open(ms, nil)
	}
	open(first, ErrReplayed)
	open(1, nil) // it is old, and nothing is forgotten yet
	open(first, ErrReplayed)
	open(2, ErrReplayed) // first is forgotten, and 2 is older
	open(first+1, ErrReplayed)
	open(first+remembered, nil)
	if len(o.known) != remembered || len(o.order) != remembered {
		t.Errorf("%d and %d are remembered, want %d", len(o.known), len(o.order), remembered)
	}
}
