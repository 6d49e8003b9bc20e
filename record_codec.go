package gpoll

import (
	"encoding/binary"
	"fmt"

	"github.com/corvuscrypto/gpoll/internal/topicname"
)

// How records stand in a broker. Each form begins with its version. A reader refuses versions that it does not know,
// and records that are cut off: it trusts no length before the bytes are there. Numbers are big-endian.
//
//	message   version(1)  address kind(1)  name(1+n)  except(uvarint, each 1+n)  data(the rest)
//	record    version(1)  kind(1)  nonce(8)  prev(epoch 8, seq 8, nonce 8)  id(1+n)  bytes(the rest)
const (
	messageVersion = 1
	recordVersion  = 1
)

// addressKinds are the kinds of an address by the number that stands for them in a broker.
var addressKinds = [...]kind{0: kindAll, 1: kindTopic, 2: kindClient, 3: kindUser}

// appendMessage appends a message. The caller has checked the message: the length of a name and of an id fits one byte.
func appendMessage(b []byte, to address, except []string, data []byte) []byte {
	if b == nil {
		b = make([]byte, 0, 3+len(to.name)+binary.MaxVarintLen16+33*len(except)+len(data))
	}
	number := byte(0)
	for addressKinds[number] != to.kind {
		number++
	}
	b = append(b, messageVersion, number, byte(len(to.name)))
	b = append(b, to.name...)
	b = binary.AppendUvarint(b, uint64(len(except)))
	for _, id := range except {
		b = append(append(b, byte(len(id))), id...)
	}
	return append(b, data...)
}

// decodeMessage is the inverse of appendMessage. data is in the memory of b. It does not check public ids: a text that
// is none names nobody.
func decodeMessage(b []byte) (to address, except []string, data []byte, err error) {
	bad := func(what string) (address, []string, []byte, error) {
		return address{}, nil, nil, fmt.Errorf("%w: %s", ErrBadMessage, what)
	}
	d := decoder{rest: b}
	if version := d.byte(); version != messageVersion {
		return bad(fmt.Sprintf("it is in form %d, and this version of gpoll knows form %d", version, messageVersion))
	}
	number := int(d.byte())
	name := string(d.short())
	count := d.uvarint()
	switch {
	case d.failed:
		return bad("it is cut off")
	case number >= len(addressKinds):
		return bad(fmt.Sprintf("its address is of kind %d", number))
	case count > maxExcept:
		return bad(fmt.Sprintf("Except lists %d clients, the limit is %d", count, maxExcept))
	}
	to = address{addressKinds[number], name}
	switch {
	case to.kind == kindTopic && !topicname.Valid(name):
		return bad("topic: " + topicname.Rule)
	case (to.kind == kindAll) != (name == ""):
		return bad("its address has no name, or one too many")
	}
	for range count {
		except = append(except, string(d.short()))
		if d.failed {
			return bad("it is cut off")
		}
	}
	return to, except, d.rest[:len(d.rest):len(d.rest)], nil
}

// AppendBinary appends r to b, without its Position. It implements encoding.BinaryAppender. The error wraps
// ErrBadMessage: the ID has more than 128 bytes.
func (r Record) AppendBinary(b []byte) ([]byte, error) {
	if len(r.ID) > maxPublishID {
		return b, fmt.Errorf("%w: the id has %d bytes, the limit is %d", ErrBadMessage, len(r.ID), maxPublishID)
	}
	if r.decoded {
		r = r.sealed()
	}
	b = append(b, recordVersion, byte(r.Kind))
	for _, n := range [...]uint64{r.Nonce, r.Prev.Position.Epoch, r.Prev.Position.Seq, r.Prev.Nonce} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = append(append(b, byte(len(r.ID))), r.ID...)
	return append(b, r.Bytes...), nil
}

// DecodeRecord is the inverse of AppendBinary; the caller adds the Position. Bytes is in the memory of b. The error
// wraps ErrBadMessage: b is damaged, or has a form that this version of gpoll does not know. A broker delivers such a
// record with its Position and Kind 0, which no record has: clients are told that something is missing there.
func DecodeRecord(b []byte) (Record, error) {
	d := decoder{rest: b}
	if version := d.byte(); version != recordVersion {
		return Record{}, fmt.Errorf("%w: a record in form %d, and this version of gpoll knows form %d",
			ErrBadMessage, version, recordVersion)
	}
	r := Record{Kind: RecordKind(d.byte()), Nonce: d.uint64()}
	r.Prev = Link{Position{Epoch: d.uint64(), Seq: d.uint64()}, d.uint64()}
	r.ID = string(d.short())
	if d.failed || len(r.ID) > maxPublishID {
		return Record{}, fmt.Errorf("%w: a record of %d bytes is damaged", ErrBadMessage, len(b))
	}
	r.Bytes = d.rest[:len(d.rest):len(d.rest)]
	return r, nil
}

// A decoder takes parts from the front of rest. When a part is missing the decoder has failed, and every further part
// is empty.
type decoder struct {
	rest   []byte
	failed bool
}

func (d *decoder) take(n int) []byte {
	if d.failed || n > len(d.rest) {
		d.failed, d.rest = true, nil
		return nil
	}
	part := d.rest[:n]
	d.rest = d.rest[n:]
	return part
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

// short takes up to 255 bytes. Their number is the byte before them.
func (d *decoder) short() []byte { return d.take(int(d.byte())) }

func (d *decoder) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.failed, d.rest = true, nil
		return 0
	}
	d.take(n)
	return v
}
