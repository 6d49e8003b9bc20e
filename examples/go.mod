module github.com/corvuscrypto/gpoll/examples

go 1.26.0

require (
	github.com/coder/websocket v1.8.15
	github.com/corvuscrypto/gpoll v0.1.0
)

require github.com/google/uuid v1.6.0 // indirect
