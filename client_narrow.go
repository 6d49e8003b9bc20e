package gpoll

// A client whose answer was cut gets a smaller one the next time: narrow says how much smaller, in steps of which
// narrowSteps halve the bytes. An answer that went out takes one step back.
const (
	narrowSteps = 8
	mostNarrow  = 10 * narrowSteps // about 1 KiB
)

// cutLocked is called when an answer to c's poll has not gone out whole.
func (c *Client) cutLocked() { c.narrow = min(c.narrow-c.narrow%narrowSteps+narrowSteps, mostNarrow) }

func (c *Client) cut() {
	c.routine.mu.Lock()
	defer c.routine.mu.Unlock()
	c.cutLocked()
}

// wholeLocked is called when an answer with messages has gone out.
func (c *Client) wholeLocked() {
	if c.narrow > 0 {
		c.narrow--
	}
}

func (c *Client) whole() {
	c.routine.mu.Lock()
	defer c.routine.mu.Unlock()
	c.wholeLocked()
}

// narrowed makes a limit smaller for a client whose answers are cut. One message goes out whatever its size.
func (max replay) narrowed(narrow uint8) replay {
	max.bytes >>= (narrow + narrowSteps - 1) / narrowSteps
	return max
}
