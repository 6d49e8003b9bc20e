package load

// Mixed shares the clients of each stream out among several protocols.
type Mixed []Protocol

func (m Mixed) of(c *Client) Protocol { return m[c.Index/len(c.engine.streams)%len(m)] }

// Start implements Protocol.
func (m Mixed) Start(c *Client, dst []byte) []byte { return m.of(c).Start(c, dst) }

// Receive implements Protocol.
func (m Mixed) Receive(c *Client, p []byte) (int, error) { return m.of(c).Receive(c, p) }

// Closed implements Protocol.
func (m Mixed) Closed(c *Client) bool { return m.of(c).Closed(c) }
