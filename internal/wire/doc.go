// Package wire decodes what a gpoll server sends: events of SSE, messages and gaps in JSON, refusals and close frames.
// It knows the text and not what it means: a Position is a string here. docs/protocol.md is its source.
package wire
