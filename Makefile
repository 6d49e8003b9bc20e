# make test    everything that has to pass, with what it needs installed where that can be done
# make lint    gofmt, go vet, staticcheck, go fix
# make bench   the benchmarks, ten times each, in a form for benchstat
# make fuzz    each fuzz target for FUZZTIME (default 30s)
# make long    the soak for 60 s
# make vuln    known vulnerabilities in what is reachable
#
# GPOLL_REQUIRE=1 makes a failure of everything that would be skipped.

GO       ?= go
FUZZTIME ?= 30s
BENCH    ?= .

.PHONY: test setup lint bench fuzz long vuln

test: setup lint
	$(GO) test -race -timeout 15m work
	GOWORK=off $(GO) test -timeout 10m ./...

setup:
	sh tools/setup.sh

lint:
	sh tools/lint.sh

bench:
	mkdir -p bench
	$(GO) test -run '^$$' -bench '$(BENCH)' -count 10 . | tee bench/new.txt
	@if [ -f bench/old.txt ]; then $(GO) tool benchstat bench/old.txt bench/new.txt; else $(GO) tool benchstat bench/new.txt; fi

fuzz:
	sh tools/fuzz.sh $(FUZZTIME)

long:
	GPOLL_SOAK=60s $(GO) test -count 1 -timeout 20m -v -run 'Soak' ./gpolltest/...

vuln:
	$(GO) tool govulncheck ./... ./cmd/...
