package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"
)

// refusedFlag makes a sentence of what the flag package says of a command line: it says what would be right.
func refusedFlag(cmd *cli.Command, err error) error {
	text := err.Error()
	if m := regexp.MustCompile(`^invalid value "(.*)" for flag -+([^:]+): `).FindStringSubmatch(text); m != nil {
		return usageError{fmt.Errorf("-%s takes %s, not %q", m[2], taken(cmd, m[2]), m[1])}
	}
	if m := regexp.MustCompile(`^flag provided but not defined: -+(\S+)`).FindStringSubmatch(text); m != nil {
		return usageError{fmt.Errorf("there is no flag -%s; there are -%s", m[1], strings.Join(flagNames(cmd), ", -"))}
	}
	if m := regexp.MustCompile(`^flag needs an argument: -*(\S+)`).FindStringSubmatch(text); m != nil {
		return usageError{fmt.Errorf("-%s needs %s after it", m[1], taken(cmd, m[1]))}
	}
	return usageError{err}
}

// taken says what a flag takes.
func taken(cmd *cli.Command, name string) string {
	for _, c := range cmd.Lineage() {
		for _, f := range c.Flags {
			if !slices.Contains(f.Names(), name) {
				continue
			}
			switch f.(type) {
			case *cli.IntFlag:
				return "a whole number"
			case *cli.Uint64Flag:
				return "a whole number from 0 on"
			case *cli.IntSliceFlag:
				return "whole numbers, divided by commas"
			case *cli.FloatFlag:
				return "a number"
			case *cli.FloatSliceFlag:
				return "numbers, divided by commas"
			case *cli.DurationFlag:
				return "a time such as 500ms, 5s or 1m"
			case *cli.BoolFlag:
				return "true or false"
			}
		}
	}
	return "a value"
}

func flagNames(cmd *cli.Command) (names []string) {
	for _, c := range cmd.Lineage() {
		for _, f := range c.Flags {
			if local, ok := f.(cli.LocalFlag); ok && local.IsLocal() && c != cmd {
				continue
			}
			names = append(names, f.Names()[0])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
