#!/bin/sh
# Checks that the root module builds, with its tests, for each kind of system: with send(2) and without, with epoll(7) and
# without, and without sockets that can be used without waiting.
set -eu
cd "$(dirname "$0")/.."
rooms=$(GOWORK=off go list -deps -f '{{if .Module}}{{if .Module.Main}}{{.ImportPath}}{{end}}{{end}}' . | sort)
for system in linux/amd64 linux/386 linux/s390x darwin/arm64 windows/amd64 freebsd/amd64 aix/ppc64 plan9/amd64; do
	echo "== $system"
	GOWORK=off GOOS=${system%/*} GOARCH=${system#*/} go vet $rooms
done
