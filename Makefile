# make test    everything that has to pass, with what it needs installed where that can be done
# make lint    gofmt, go vet, staticcheck, go fix
# make cross   checks the root module for every other system
# make bench   measures everything beside other libraries and writes docs/benchmarks.md; forty minutes on an idle machine
# make bench-quick  measures a small part in two minutes; writes nothing
# make fuzz    each fuzz target for FUZZTIME (default 30s)
# make long    the soak for 60 s, and six seeds of tests/strangers
# make explore runs schedules of the interleaving explorer without end; GPOLL_SEED says where it begins
# make mutants plants every bug of testdata/planted, one at a time: a test, the checker or the explorer has to find it
# make vuln    looks for known vulnerabilities in the code that gpoll can reach
#
# With GPOLL_REQUIRE=1 a test that would be skipped fails.

GO       ?= go
FUZZTIME ?= 30s

.PHONY: test setup lint cross bench bench-quick fuzz long explore mutants vuln

test: setup lint cross
	$(GO) test -race -timeout 15m work
	GPOLL_TEST_LISTENER=1 $(GO) test -race -timeout 10m .
	GOWORK=off $(GO) test -timeout 10m ./...

setup:
	sh tools/setup.sh

lint:
	sh tools/lint.sh

cross:
	sh tools/cross.sh

# BENCH_ARGS are flags of peers/cmd/bench: BENCH_ARGS="-cells ws -systems gpoll,bare,batch", BENCH_ARGS="-cells none", …
bench:
	cd peers && $(GO) run ./cmd/bench -paced 3s -saturated 2s -burst 1s -wait 2s $(BENCH_ARGS) -o ../docs/benchmarks.md

bench-quick:
	cd peers && $(GO) run ./cmd/bench -cells ws-1000,sse-1000,lp-1000 -systems gpoll,bare,batch -rounds 1 \
		-paced 1s -saturated 1s -burst 500ms -silent 2s -wait 1s -benchtime 100ms $(BENCH_ARGS)

fuzz:
	sh tools/fuzz.sh $(FUZZTIME)

long:
	GPOLL_SOAK=60s $(GO) test -count 1 -timeout 20m -v -run 'Soak' ./gpolltest/...
	GPOLL_STRANGERS=long $(GO) test -count 1 -timeout 30m -v -run 'StrangersLong' ./tests/strangers

explore:
	GPOLL_KEEP_ON=1 GPOLL_SCHEDULES=$${GPOLL_SCHEDULES:-1000000000} $(GO) test -count 1 -timeout 0 -v -run TestExplore ./internal/explore

mutants:
	GPOLL_MUTANTS=1 $(GO) test -count 1 -timeout 30m -v -run 'Planted' ./gpolltest ./internal/explore

vuln:
	$(GO) tool govulncheck ./... ./cmd/...
