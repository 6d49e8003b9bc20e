package gpoll

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"unsafe"

	"github.com/google/uuid"
)

// UUID returns a new random UUID (version 4, RFC 9562) in lower case. The 2015 package had the function; google/uuid
// makes the UUID.
func UUID() string { return uuid.NewString() }

// PublicID returns the name under which other clients, Message.Except and ToClient know a client: the first half of the
// SHA-256 of its uuid, in 32 hexadecimal digits of lower case. It has no other spelling. id is a whole client id or the
// bare uuid that AddClient returns. Nobody can find the uuid from the public id.
func PublicID(id string) string {
	if _, bare, ok := parseClientID(id); ok {
		id = bare
	}
	return keyOf(id).String()
}

// A clientKey finds a client in the registry. It is a hash, so that the time of a look-up does not tell how close a
// guess is to an id.
type clientKey [16]byte

func keyOf(uuid string) clientKey {
	sum := sha256.Sum256(unsafe.Slice(unsafe.StringData(uuid), len(uuid))) // no conversion: it would allocate
	return clientKey(sum[:16])
}

func (k clientKey) String() string { return hex.EncodeToString(k[:]) }

// validPublicID reports whether s is spelled as a public id.
func validPublicID(s string) bool { return len(s) == 2*len(clientKey{}) && lowerHex(s) }

// parseKey is the inverse of clientKey.String. It takes that spelling only, since the replay compares public ids as
// strings.
func parseKey(publicID string) (k clientKey, ok bool) {
	if !validPublicID(publicID) {
		return k, false
	}
	_, err := hex.Decode(k[:], []byte(publicID))
	return k, err == nil
}

func formatClientID(routine int, uuid string) string {
	return strconv.Itoa(routine) + "$" + uuid
}

// parseClientID takes a client id apart. It accepts `<0 to 999999, no leading zero>$<uuid v4 in lower case>` and
// nothing else, and does not allocate.
func parseClientID(s string) (routine int, uuid string, ok bool) {
	routine, uuid, ok = cutClientID(s, "$")
	return routine, uuid, ok && validUUID(uuid)
}

// cutClientID is parseClientID for an id with that dollar. It takes any 36 bytes for a UUID.
func cutClientID(s, dollar string) (routine int, uuid string, ok bool) {
	const uuidLen = 36
	digits := len(s) - uuidLen - len(dollar)
	if digits < 1 || digits > 6 || s[digits:digits+len(dollar)] != dollar {
		return 0, "", false
	}
	n, ok := parseDecimal(s[:digits])
	return int(n), s[digits+len(dollar):], ok
}

// validUUID reports whether s is a version 4 UUID of variant 1 in lower case.
func validUUID(s string) bool {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' || s[14] != '4' {
		return false
	}
	if c := s[19]; c != '8' && c != '9' && c != 'a' && c != 'b' {
		return false
	}
	return lowerHex(s[:8]) && lowerHex(s[9:13]) && lowerHex(s[15:18]) && lowerHex(s[20:23]) && lowerHex(s[24:])
}

func lowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; c-'0' > 9 && c-'a' > 5 {
			return false
		}
	}
	return true
}
