package client

// Slots returns how many variants the client holds something of.
func (c *Client) Slots() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.slots)
}
