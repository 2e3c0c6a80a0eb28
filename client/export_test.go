package client

// Slots returns how many variants the client holds something of.
func (c *Client) Slots() int {
	n := 0
	c.each(func(*slot) { n++ })
	return n
}
