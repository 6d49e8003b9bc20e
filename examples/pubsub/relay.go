package main

import (
	"bytes"

	"github.com/corvuscrypto/gpoll/eventloop"
)

// A relay knows who hears which channel. The loop calls it, one call after the other, so it has no lock.
type relay struct {
	hears   map[uint64]map[string]bool // channels by connections
	hearers map[string]map[uint64]bool // the other way round
}

func newRelay() *relay {
	return &relay{map[uint64]map[string]bool{}, map[string]map[uint64]bool{}}
}

func (r *relay) ConnAccepted(_ *eventloop.Loop, id uint64) { r.hears[id] = map[string]bool{} }

func (r *relay) ConnClosed(_ *eventloop.Loop, id uint64) {
	r.unsubscribeAll(id)
	delete(r.hears, id)
}

func (r *relay) EventLoopTimeout(*eventloop.Loop) {}

func (r *relay) MessageReceived(loop *eventloop.Loop, id uint64, message []byte) {
	answer := "OK"
	if !r.obey(loop, id, message) {
		answer = "Invalid message"
	}
	_ = loop.Write(id, []byte(answer)) // the connection may have ended
}

// obey reports whether it understands a message.
func (r *relay) obey(loop *eventloop.Loop, id uint64, message []byte) bool {
	verb, rest, some := bytes.Cut(message, []byte(":"))
	channel, body, two := bytes.Cut(rest, []byte(":"))
	switch {
	case string(verb) == "subscribe" && some && !two:
		r.hears[id][string(channel)] = true
		if r.hearers[string(channel)] == nil {
			r.hearers[string(channel)] = map[uint64]bool{}
		}
		r.hearers[string(channel)][id] = true
	case string(verb) == "unsubscribe" && some && !two:
		r.unsubscribe(id, string(channel))
	case string(verb) == "unsubscribe-all" && !some:
		r.unsubscribeAll(id)
	case string(verb) == "publish" && two:
		for hearer := range r.hearers[string(channel)] {
			_ = loop.Write(hearer, body) // as above
		}
	default:
		return false
	}
	return true
}

func (r *relay) unsubscribe(id uint64, channel string) {
	delete(r.hears[id], channel)
	if delete(r.hearers[channel], id); len(r.hearers[channel]) == 0 {
		delete(r.hearers, channel)
	}
}

func (r *relay) unsubscribeAll(id uint64) {
	for channel := range r.hears[id] {
		r.unsubscribe(id, channel)
	}
}
