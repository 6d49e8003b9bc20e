module github.com/corvuscrypto/gpoll/internal/load

go 1.26.0

require (
	github.com/HdrHistogram/hdrhistogram-go v1.4.0
	github.com/coder/websocket v1.8.15
	github.com/corvuscrypto/gpoll v0.1.0
	golang.org/x/sys v0.49.0
)

require github.com/google/uuid v1.6.0 // indirect
