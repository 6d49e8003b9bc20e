module github.com/corvuscrypto/gpoll

go 1.26

require (
	github.com/coder/websocket v1.8.15
	github.com/google/uuid v1.6.0
)
