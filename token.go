package gpoll

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"

	"github.com/google/uuid"
)

// UUID returns a new random UUID (version 4, RFC 9562) in lower case. It is the seed's generator, from google/uuid today.
func UUID() string { return uuid.NewString() }

// PublicID returns the name under which other clients, Message.Except and ToClient know a client: the first half of the
// SHA-256 of its uuid, in hexadecimal. id is a whole client id or the bare uuid that AddClient returns.
// The uuid cannot be found from it.
func PublicID(id string) string {
	if _, bare, ok := parseClientID(id); ok {
		id = bare
	}
	return keyOf(id).String()
}

// A clientKey finds a client in the registry. It is a hash, so that the time of a look-up says nothing of the ids near a guess.
type clientKey [16]byte

func keyOf(uuid string) clientKey {
	sum := sha256.Sum256([]byte(uuid))
	return clientKey(sum[:16])
}

func (k clientKey) String() string { return hex.EncodeToString(k[:]) }

// parseKey is the inverse of clientKey.String.
func parseKey(publicID string) (k clientKey, ok bool) {
	if len(publicID) != 2*len(k) {
		return k, false
	}
	_, err := hex.Decode(k[:], []byte(publicID))
	return k, err == nil
}

func formatClientID(routine int, uuid string) string {
	return strconv.Itoa(routine) + "$" + uuid
}

// parseClientID takes a client id apart. It accepts `<0 to 999999, no leading zero>$<uuid v4 in lower case>` and nothing else,
// and does not allocate.
func parseClientID(s string) (routine int, uuid string, ok bool) {
	const uuidLen = 36
	digits := len(s) - uuidLen - 1
	if digits < 1 || digits > 6 || s[digits] != '$' {
		return 0, "", false
	}
	n, ok := parseDecimal(s[:digits])
	uuid = s[digits+1:]
	return int(n), uuid, ok && validUUID(uuid)
}

// validUUID reports whether s is a version 4 UUID of variant 1 in lower case.
func validUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		case 14:
			if c != '4' {
				return false
			}
		case 19:
			if c != '8' && c != '9' && c != 'a' && c != 'b' {
				return false
			}
		default:
			if !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
				return false
			}
		}
	}
	return true
}
