// Package explore runs small scripts of publishers, clients and operators over the real core under very many schedules, each drawn from a
// seed, and judges every run by the history checker of gpolltest, by what is left behind, and by the Stats.
//
// The product's files have no part in it. TestExplore copies them, and those of internal/socket, puts a point in front
// of every statement at which goroutines can meet (instrument_test.go), has the go command build the scripts
// (script_test.go) with the copies by -overlay, and runs that binary. What a point does is in internal/step.
//
//	go test ./internal/explore                                         2,000 schedules, part of make test
//	GPOLL_SCHEDULES=1000000 go test -timeout 0 -v ./internal/explore   more
//	GPOLL_SEED=42 GPOLL_SCHEDULES=1 go test -v ./internal/explore      one again
//	make explore                                                       without end
package explore
