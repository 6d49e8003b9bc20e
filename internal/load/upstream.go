package load

import "strconv"

// Say appends to dst, as a frame, what a client says for its n-th payload.
type Say func(dst, payload []byte, n uint64) []byte

// SayPlain says the payload alone.
func SayPlain(dst, payload []byte, _ uint64) []byte { return AppendFrame(dst, opText, payload) }

// SaySend says it as gpoll.v1 does, without an id.
func SaySend(dst, payload []byte, _ uint64) []byte {
	var b [512]byte
	text := append(append(b[:0], `{"send":{"data":"`...), payload...)
	return AppendFrame(dst, opText, append(text, `"}}`...))
}

// SaySendID says it as gpoll.v1 does, to be acknowledged.
func SaySendID(dst, payload []byte, n uint64) []byte {
	return sayID(dst, `{"send":{"data":"`, payload, n)
}

// SayRequest asks it as gpoll.v1 does.
func SayRequest(dst, payload []byte, n uint64) []byte {
	return sayID(dst, `{"request":{"data":"`, payload, n)
}

func sayID(dst []byte, head string, payload []byte, n uint64) []byte {
	var b [512]byte
	text := append(append(append(b[:0], head...), payload...), `"},"id":"`...)
	return AppendFrame(dst, opText, append(strconv.AppendUint(text, n, 10), `"}`...))
}
