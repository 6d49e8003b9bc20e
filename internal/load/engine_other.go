//go:build !linux

package load

import (
	"context"
	"time"
)

// Engine is not available on this system: New returns ErrPlatform.
type Engine struct {
	streams      []*stream
	tally        *Tally
	now          int64
	readyClients int
	up           *upstream
	OnProgress   func(ready, clients int)
}

func New(Config) (*Engine, error)                                            { return nil, ErrPlatform }
func (e *Engine) Close()                                                     {}
func (e *Engine) Connect(context.Context, time.Duration) error               { return ErrPlatform }
func (e *Engine) Run(func() bool) error                                      { return ErrPlatform }
func (e *Engine) Drain(uint64, time.Duration) (bool, error)                  { return false, ErrPlatform }
func (e *Engine) DrainEach([]uint64, time.Duration) (bool, error)            { return false, ErrPlatform }
func (e *Engine) OnDone(func(uint64))                                        {}
func (e *Engine) Snapshot() *Tally                                           { return e.tally }
func (e *Engine) Take([]uint64) *Tally                                       { return e.tally }
func (e *Engine) Flood(Say, int, int, int, func() bool) (uint64, error)      { return 0, ErrPlatform }
func (e *Engine) Ask(Say, int, time.Duration, time.Duration) (uint64, error) { return 0, ErrPlatform }
func (c *Client) Send([]byte)                                                {}

type upstream struct{}

func (u *upstream) answered(*Client) {}

// RaiseDescriptors does nothing on this system.
func RaiseDescriptors(int) error { return nil }
