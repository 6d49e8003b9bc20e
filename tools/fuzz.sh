#!/bin/sh
# Runs every fuzz target of the root module and of cmd, one after the other, for the time that is given (30s).
set -eu
cd "$(dirname "$0")/.."
time=${1:-30s}

for module in . cmd; do
	[ -f "$module/go.mod" ] || continue
	(
		cd "$module"
		go list ./... | while read -r package; do
			go test -list '^Fuzz' "$package" | grep '^Fuzz' | while read -r target; do
				echo "== $package $target for $time"
				go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 20x "$package" </dev/null
			done
		done
	)
done
