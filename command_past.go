package gpoll

import (
	"hash/maphash"
	"math/bits"
	"unsafe"
)

// pastCommands are the commands with an id that a client has given lately, and their answers. A process may remember
// millions of them, so they make little garbage and few pointers: an id is known by a hash of 64 bits, with a seed of
// this process, and the answers lie in chunks. The zero value has none.
type pastCommands struct {
	done    ring[pastCommand] // in their order
	first   uint32            // number of the first of done
	buckets []uint32          // 1 + the number of the newest command whose id's hash ends so; 0: none. See older

	chunks     ring[[]byte] // the answers, in their order; what was written is never changed
	firstChunk uint32       // number of the first of chunks
	bytes      int          // of the answers in them
}

// A pastCommand is a command with an id that is done.
type pastCommand struct {
	id, sum  uint64 // hashes of the id, and of what it said
	at       moment
	older    uint32 // as in buckets: the next in the same bucket. It may be forgotten already
	chunk    uint32
	from, to uint32 // in that chunk
}

// Chunks grow with what a client says.
const (
	leastChunk = 256
	mostChunk  = 4096
)

var commandSeed = maphash.MakeSeed()

// sum tells commands apart that have the same id.
func (cmd *command) sum() uint64 {
	return maphash.Bytes(commandSeed, cmd.data) + maphash.String(commandSeed, cmd.topic)<<8 + uint64(cmd.kind)
}

// What find knows of a command.
type pastOutcome uint8

const (
	unheardOf pastOutcome = iota
	answered              // and the answer is there
	answeredLongAgo
	another // had the same id
)

// find returns the answer of a command that was done before.
func (p *pastCommands) find(cmd *command, now moment) (answer []byte, was pastOutcome) {
	p.forget(now)
	if p.done.len == 0 {
		return nil, unheardOf
	}
	id := maphash.String(commandSeed, cmd.id)
	n := p.buckets[id&uint64(len(p.buckets)-1)]
	for n != 0 && n-1-p.first < uint32(p.done.len) { // the numbers may begin anew at 0
		done := p.done.at(int(n - 1 - p.first))
		chunk := done.chunk - p.firstChunk
		switch {
		case done.id != id:
			n = done.older
			continue
		case done.sum != cmd.sum():
			return nil, another
		case chunk >= uint32(p.chunks.len):
			return nil, answeredLongAgo
		}
		return p.chunks.at(int(chunk))[done.from:done.to:done.to], answered
	}
	return nil, unheardOf
}

// tail is where the next answer may be written: it is empty and has room for at least so many bytes.
func (p *pastCommands) tail(room int) []byte {
	if p.chunks.len > 0 {
		if c := p.chunks.at(p.chunks.len - 1); cap(c)-len(c) >= room {
			return c[len(c):]
		}
	}
	size := max(room, min(mostChunk, leastChunk<<bits.Len(uint(p.bytes/leastChunk))))
	p.chunks.push(make([]byte, 0, size))
	return p.chunks.at(p.chunks.len - 1)
}

// add remembers a command and its answer. Beyond replyBytes it forgets the oldest answers.
func (p *pastCommands) add(cmd *command, answer []byte, now moment) {
	p.forget(now)
	to := p.tail(len(answer))
	if unsafe.SliceData(answer) != unsafe.SliceData(to[:cap(to)]) {
		copy(to[:len(answer)], answer)
	}
	c := p.chunks.ref(p.chunks.len - 1)
	from := len(*c)
	*c = (*c)[:from+len(answer)]
	p.bytes += len(answer)
	p.index(pastCommand{id: maphash.String(commandSeed, cmd.id), sum: cmd.sum(), at: now,
		chunk: p.firstChunk + uint32(p.chunks.len-1), from: uint32(from), to: uint32(from + len(answer))})
	for p.bytes > replyBytes && p.chunks.len > 1 {
		p.dropChunk()
	}
	if p.done.len > commandIDCount {
		p.drop()
	}
}

func (p *pastCommands) index(done pastCommand) {
	if 2*len(p.buckets) <= p.done.len {
		p.buckets = make([]uint32, max(8, 4*len(p.buckets)))
		for i := range p.done.len {
			p.link(p.done.ref(i), p.first+uint32(i))
		}
	}
	p.link(&done, p.first+uint32(p.done.len))
	p.done.push(done)
}

// link makes done, which has that number, the newest of its bucket.
func (p *pastCommands) link(done *pastCommand, number uint32) {
	bucket := &p.buckets[done.id&uint64(len(p.buckets)-1)]
	done.older, *bucket = *bucket, number+1
}

// drop forgets the oldest command, and the chunks that have no answer any more.
func (p *pastCommands) drop() {
	p.done.drop()
	p.first++
	for p.done.len > 0 && p.chunks.len > 1 && int32(p.done.first().chunk-p.firstChunk) > 0 {
		p.dropChunk()
	}
}

func (p *pastCommands) dropChunk() {
	p.bytes -= len(*p.chunks.first())
	p.chunks.drop()
	p.firstChunk++
}

// forget drops the commands that are too old. Without one it holds no memory.
func (p *pastCommands) forget(now moment) {
	if p.done.len == 0 {
		return
	}
	for p.done.len > 0 && now-p.done.first().at > moment(commandIDAge) {
		p.drop()
	}
	if p.done.len == 0 {
		*p = pastCommands{}
	}
}
