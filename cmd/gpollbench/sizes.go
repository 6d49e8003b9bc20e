package main

import (
	"flag"
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/corvuscrypto/gpoll"
)

// sizes are the fields of a Broadcaster that are worth tuning. 0 is the field's default.
type sizes struct {
	RoutineMaxClients int `json:"RoutineMaxClients"`
	ClientBufferSize  int `json:"ClientBufferSize"`
	RoutineBufferSize int `json:"RoutineBufferSize"`
	SyncDelayMs       int `json:"SyncDelayMs"`
}

func defaults() sizes {
	b := gpoll.NewBroadcaster()
	return sizes{b.RoutineMaxClients, b.ClientBufferSize, b.RoutineBufferSize, b.SyncDelayMs}
}

// field names one of them.
type field struct {
	name string // in Go
	flag string
	of   func(*sizes) *int
}

var fields = []field{
	{"RoutineMaxClients", "routine-max-clients", func(s *sizes) *int { return &s.RoutineMaxClients }},
	{"ClientBufferSize", "client-buffer-size", func(s *sizes) *int { return &s.ClientBufferSize }},
	{"RoutineBufferSize", "routine-buffer-size", func(s *sizes) *int { return &s.RoutineBufferSize }},
	{"SyncDelayMs", "sync-delay-ms", func(s *sizes) *int { return &s.SyncDelayMs }},
}

func (s *sizes) flags() []cli.Flag {
	*s = defaults()
	var out []cli.Flag
	for _, f := range fields {
		out = append(out, &cli.IntFlag{Name: f.flag, Value: *f.of(s),
			Usage: "`" + "NUMBER" + "` for the Broadcaster's " + f.name, Destination: f.of(s), Local: true})
	}
	return out
}

// add defines them in a flag set of the standard library.
func (s *sizes) add(set *flag.FlagSet) {
	*s = defaults()
	for _, f := range fields {
		set.IntVar(f.of(s), f.flag, *f.of(s), f.name)
	}
}

// args are the flags that say s.
func (s *sizes) args() (out []string) {
	for _, f := range fields {
		out = append(out, "-"+f.flag, strconv.Itoa(*f.of(s)))
	}
	return out
}

// check returns as an error the panic of mounting a Broadcaster with these sizes.
func (s *sizes) check() error {
	for _, f := range fields {
		if n := *f.of(s); n < 0 {
			return usagef("%s is %d; it must be 0, for the default, or more", f.name, n)
		}
	}
	return nil
}

func (s *sizes) broadcaster() *gpoll.Broadcaster {
	b := gpoll.NewBroadcaster()
	b.RoutineMaxClients = s.RoutineMaxClients
	b.ClientBufferSize = s.ClientBufferSize
	b.RoutineBufferSize = s.RoutineBufferSize
	b.SyncDelayMs = s.SyncDelayMs
	return b
}

func (s sizes) String() string {
	var out []string
	for _, f := range fields {
		out = append(out, fmt.Sprintf("%s %d", f.name, *f.of(&s)))
	}
	return strings.Join(out, ", ")
}
