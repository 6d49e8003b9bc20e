// Package sealed keeps what clients say to each other from the server that carries it, and from its broker: the sender
// seals a payload with a key that the server does not have, and the receivers open it.
//
//	box, err := sealed.New(key) // 32 secret bytes, which both sides have been given beforehand
//	…
//	_, err = c.Publish(ctx, "news", box.Seal("news", []byte("hi"))) // here
//	plain, err := box.NewOpener().Open(m.Topic, m.Data)             // there
//
// A payload is sealed with AES-256-GCM (NIST SP 800-38D) for one topic: whoever carries it cannot read it, change it,
// move it to another topic, or bring it again without an [Opener] noticing. He can still leave it out, hold it back,
// and see its topic, its length, the time at which it was sealed and which payloads have the same key.
//
// # Keys
//
// A key is 32 random bytes, such as those of crypto/rand; a password is none. To change the key, give all programs the
// new one as a further key, then make it the first one everywhere, and take the old one away when nothing that it
// sealed is wanted any more. One key seals at most 2^32 payloads, in all programs together: change it before.
//
// # Form
//
// A sealed payload is 41 bytes longer than what is in it:
//
//	1 byte    the version of this form, 1
//	4 bytes   which key: the first bytes of HKDF-SHA-256(key, no salt, "gpoll sealed key")
//	8 bytes   when it was sealed: milliseconds since 1970, big-endian
//	12 bytes  the nonce, random
//	…         AES-256-GCM; the additional data are the 25 bytes before it, and the topic
//	16 bytes  its tag
package sealed

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

const (
	// KeySize is the length of a key, in bytes.
	KeySize = 32
	// Overhead is how much longer a sealed payload is, in bytes.
	Overhead = headSize + tagSize

	version   = 1
	idSize    = 4
	timeSize  = 8
	nonceSize = 12
	tagSize   = 16
	headSize  = 1 + idSize + timeSize + nonceSize
	keyLabel  = "gpoll sealed key"
)

// What Open says of a payload that it does not open. Where a program should go on is its own matter: one forged payload
// says nothing of the next one.
var (
	ErrForm     = errors.New("sealed: this is no sealed payload of version 1")
	ErrKey      = errors.New("sealed: the payload was sealed with a key that is not among those given to New")
	ErrForged   = errors.New("sealed: the payload was changed, or was sealed for another topic")
	ErrReplayed = errors.New("sealed: the payload has come before, or is too old to tell")
)

// A Box seals and opens payloads. All methods may be called concurrently.
type Box struct {
	keys []boxKey // the first one seals
}

type boxKey struct {
	id   [idSize]byte
	aead cipher.AEAD
}

// New returns a Box that seals with key, and opens what was sealed with key or with one of further. Each is KeySize
// bytes, and belongs to the caller again afterwards.
func New(key []byte, further ...[]byte) (*Box, error) {
	b := &Box{}
	for i, secret := range append([][]byte{key}, further...) {
		k, err := newBoxKey(secret)
		if err != nil {
			return nil, fmt.Errorf("sealed: key %d: %w", i+1, err)
		}
		for j, other := range b.keys {
			if other.id == k.id {
				return nil, fmt.Errorf("sealed: key %d: it is the same as key %d", i+1, j+1)
			}
		}
		b.keys = append(b.keys, k)
	}
	return b, nil
}

func newBoxKey(secret []byte) (k boxKey, err error) {
	if len(secret) != KeySize {
		return k, fmt.Errorf("it has %d bytes; a key is %d random bytes", len(secret), KeySize)
	}
	if bytes.Count(secret, secret[:1]) == len(secret) {
		return k, errors.New("all of its bytes are the same; a key is random")
	}
	id, err := hkdf.Key(sha256.New, secret, nil, keyLabel, idSize)
	if err != nil {
		return k, err
	}
	copy(k.id[:], id)
	block, err := aes.NewCipher(secret)
	if err != nil {
		return k, err
	}
	k.aead, err = cipher.NewGCM(block)
	return k, err
}

// Seal returns data, sealed for topic. topic is that of the message; for a message without one, what sender and
// receiver agree on. data stays the caller's.
func (b *Box) Seal(topic string, data []byte) []byte {
	var nonce [nonceSize]byte
	_, _ = rand.Read(nonce[:]) // it never fails
	return b.seal(topic, data, time.Now(), nonce)
}

func (b *Box) seal(topic string, data []byte, now time.Time, nonce [nonceSize]byte) []byte {
	out := make([]byte, 0, len(data)+Overhead)
	out = append(out, version)
	out = append(out, b.keys[0].id[:]...)
	out = binary.BigEndian.AppendUint64(out, uint64(now.UnixMilli()))
	out = append(out, nonce[:]...)
	return b.keys[0].aead.Seal(out, nonce[:], data, additional(out, topic))
}

// Open returns what is in a payload that was sealed for topic, in memory of its own. The error is ErrForm, ErrKey or
// ErrForged. Open opens the same payload as often as it is asked: an Opener does not.
func (b *Box) Open(topic string, payload []byte) ([]byte, error) {
	if len(payload) < Overhead || payload[0] != version {
		return nil, ErrForm
	}
	head, text := payload[:headSize], payload[headSize:]
	for i := range b.keys {
		if k := &b.keys[i]; bytes.Equal(k.id[:], head[1:1+idSize]) {
			data, err := k.aead.Open(nil, head[headSize-nonceSize:], text, additional(head, topic))
			if err != nil {
				return nil, ErrForged
			}
			return data, nil
		}
	}
	return nil, ErrKey
}

// additional is what the tag covers beside the data.
func additional(head []byte, topic string) []byte {
	return append(bytes.Clone(head), topic...)
}
