#!/bin/sh
# Checks that the root module, with its tests, is right for every target of "go tool dist list": its types for all of them, in
# a minute, and all that go vet checks for some. The first go vet for a target compiles the standard library for it, which
# takes another minute. CROSS_VET names the targets for go vet; "all" is each but those that cannot be linked without cgo.
set -eu
cd "$(dirname "$0")/.."
vet=${CROSS_VET-js/wasm wasip1/wasm windows/amd64}
if [ "$vet" = all ]; then vet=$(go tool dist list | grep -v '^ios/\|^android/'); fi
go run ./tools/cross
for target in $vet; do
	echo "== go vet for $target"
	GOWORK=off GOOS=${target%/*} GOARCH=${target#*/} go vet ./...
done
