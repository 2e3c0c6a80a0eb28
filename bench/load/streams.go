package load

import (
	"errors"
	"fmt"
)

// Streams opens one stream per request and hands every message that comes to on, with the index of its request, until the connection
// is closed, which is no error. It is an error if a stream ends, or if on returns one.
func (c *Conn) Streams(method string, requests [][]byte, on func(request int, msg []byte) error) error {
	index := map[uint32]int{}   // stream → request
	bufs := map[uint32][]byte{} // stream → what has come of a message that is not yet whole
	for i, r := range requests {
		id, err := c.request(method, r)
		if err != nil {
			return err
		}
		index[id] = i
	}
	data := func(stream uint32, data []byte) error {
		i, ok := index[stream]
		if !ok {
			return fmt.Errorf("data on stream %d, which was not opened", stream)
		}
		buf := data
		if len(bufs[stream]) > 0 {
			bufs[stream] = append(bufs[stream], data...)
			buf = bufs[stream]
		}
		for {
			msg, rest, err := message(buf)
			if err != nil {
				return err
			}
			if msg == nil {
				bufs[stream] = append(bufs[stream][:0], rest...)
				return nil
			}
			if err := on(i, msg); err != nil {
				return err
			}
			buf = rest
		}
	}
	end := func(stream uint32, status string) error {
		return fmt.Errorf("stream %d ended with grpc-status %q: %s", stream, status, c.said)
	}
	for {
		err := c.read(events{data: data, end: end})
		switch {
		case err != nil && closed(err):
			return nil
		case err != nil:
			return errors.Join(err, c.Close())
		}
	}
}
