// Package explore runs small scripts of publishers, clients and operators over the real core under very many schedules.
// A seed decides each schedule. The history checker of gpolltest, the Stats, and a look at what is left behind judge
// every run.
//
// The files of the package itself do not change. TestExplore copies them, and those of internal/socket, and puts a
// point in front of every statement at which goroutines can meet (instrument_test.go). The go command builds the
// scripts (script_test.go) with the copies by -overlay, and TestExplore runs that binary. internal/step says what a
// point does.
//
//	go test ./internal/explore                                         2,000 schedules, part of make test
//	GPOLL_SCHEDULES=1000000 go test -timeout 0 -v ./internal/explore   more
//	GPOLL_SEED=42 GPOLL_SCHEDULES=1 go test -v ./internal/explore      one again
//	make explore                                                       without end
package explore
