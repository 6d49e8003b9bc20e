package main

import (
	"bytes"
	"flag"
	"slices"
	"strings"
	"testing"
	"time"
)

// Every flag is in the help, once.
func TestHelpHasEveryFlag(t *testing.T) {
	var grouped, declared []string
	for _, g := range flagGroups {
		grouped = append(grouped, g.names...)
	}
	new(settings).flags().VisitAll(func(f *flag.Flag) { declared = append(declared, f.Name) })
	slices.Sort(grouped)
	if !slices.Equal(grouped, declared) {
		t.Errorf("the help has %q, the program %q", grouped, declared)
	}
	var help bytes.Buffer
	printHelp(&help)
	for line := range strings.Lines(help.String()) {
		if len(line) > 110 {
			t.Errorf("a line of the help is too long: %q", line)
		}
	}
}

func TestSettingsReachTheBroadcaster(t *testing.T) {
	set, err := parseSettings(strings.Fields(`
		-routine-max-clients 1 -client-buffer 2 -routine-buffer 3 -sync-delay 4ms
		-history-count 5 -history-bytes 6KiB -history-age 7m
		-max-message 8 -max-clients 9 -max-topics 10
		-poll-wait 11s -heartbeat 12s -client-ttl 13s -shutdown-spread 14s
		-allow-origin https://a.example -allow-origin https://b.example:444`), func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	b := set.broadcaster(nil)
	for name, same := range map[string]bool{
		"RoutineMaxClients": b.RoutineMaxClients == 1, "ClientBufferSize": b.ClientBufferSize == 2,
		"RoutineBufferSize": b.RoutineBufferSize == 3, "SyncDelayMs": b.SyncDelayMs == 4,
		"History.Count": b.History.Count == 5,
		"History.Bytes": b.History.Bytes == 6144, "History.Age": b.History.Age == 7*time.Minute,
		"MaxMessage": b.MaxMessage == 8, "MaxClients": b.MaxClients == 9, "MaxTopics": b.MaxTopics == 10,
		"PollWait": b.PollWait == 11*time.Second, "Heartbeat": b.Heartbeat == 12*time.Second,
		"ClientTTL": b.ClientTTL == 13*time.Second, "ShutdownSpread": b.ShutdownSpread == 14*time.Second,
		"AllowedOrigins": slices.Equal(b.AllowedOrigins, []string{"https://a.example", "https://b.example:444"}),
	} {
		if !same {
			t.Errorf("%s is not as on the command line", name)
		}
	}
}

func TestByteSize(t *testing.T) {
	for in, want := range map[string]string{
		"0": "0", "1": "1", "1023": "1023", "1024": "1KiB", "64KiB": "64KiB", "65536": "64KiB", "1MiB": "1MiB",
		"1536KiB": "1536KiB", "1GiB": "1GiB", "12B": "12",
	} {
		var s byteSize
		if err := s.Set(in); err != nil || s.String() != want {
			t.Errorf("%s: %s, error %v, want %s", in, &s, err, want)
		}
	}
	for _, in := range []string{"", "KiB", "-1", "1.5MiB", "1 MiB", "2GiB", "1073741825", "99999999999999999999", "1TB",
		"0x10"} {
		if s := byteSize(7); s.Set(in) == nil || s != 7 {
			t.Errorf("%q was accepted as %d", in, s)
		}
	}
}
