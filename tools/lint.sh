#!/bin/sh
# Checks the form of all modules of the workspace. The programs of 2015 (testdata/seed-*) stay as they were written.
set -eu
cd "$(dirname "$0")/.."

bad=$(git ls-files --cached --others --exclude-standard '*.go' | grep -v '^testdata/seed-' | while read -r file; do
	if [ -f "$file" ]; then echo "$file"; fi
done | xargs gofmt -l)
if [ -n "$bad" ]; then
	echo "gofmt would change:" $bad
	exit 1
fi
go vet work
go vet -tags explore ./internal/explore
go tool staticcheck work
fixes=$(go fix -diff work) || true # its status says only that there is something
if [ -n "$fixes" ]; then
	echo "go fix would change:"
	echo "$fixes"
	exit 1
fi
