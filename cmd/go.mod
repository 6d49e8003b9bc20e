module github.com/corvuscrypto/gpoll/cmd

go 1.26.0

require (
	github.com/coder/websocket v1.8.15
	github.com/corvuscrypto/gpoll v0.1.0
	github.com/corvuscrypto/gpoll/internal/load v0.1.0
	github.com/schollz/progressbar/v3 v3.19.1
	github.com/urfave/cli/v3 v3.14.0
	golang.org/x/term v0.44.0
)

require (
	github.com/HdrHistogram/hdrhistogram-go v1.4.0 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/mitchellh/colorstring v0.0.0-20190213212951-d06e56a500db // indirect
	github.com/rivo/uniseg v0.4.7 // indirect
	golang.org/x/sys v0.49.0 // indirect
)
