package grant_test

import (
	"crypto/tls"
	"io"
	"net/http"

	"golang.org/x/net/http2"
)

// hijackHTTP2 speaks HTTP/2 by hand: it reads a request whole, answers with a fault and counts the streams until the
// connection ends.
func hijackHTTP2(fault string, streams chan<- int) map[string]func(*http.Server, *tls.Conn, http.Handler) {
	return map[string]func(*http.Server, *tls.Conn, http.Handler){"h2": func(_ *http.Server, c *tls.Conn, _ http.Handler) {
		defer func() { _ = c.Close() }()
		total := 0
		defer func() { streams <- total }()
		if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		f := http2.NewFramer(c, c)
		if err := f.WriteSettings(); err != nil {
			return
		}
		for {
			n, id, ok := frames(f)
			total += n
			if !ok {
				return
			}
			answerHTTP2(f, fault, id)
			if fault == "going away" {
				return
			}
		}
	}}
}

func answerHTTP2(f *http2.Framer, fault string, id uint32) {
	switch fault {
	case "refused stream":
		_ = f.WriteRSTStream(id, http2.ErrCodeRefusedStream)
	case "going away":
		_ = f.WriteGoAway(0, http2.ErrCodeNo, nil) // the stream was not processed, it says
	case "reset":
		_ = f.WriteRSTStream(id, http2.ErrCodeInternal)
	}
}

// frames reads frames until a whole request is in or the connection ends.
func frames(f *http2.Framer) (streams int, id uint32, ok bool) {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return streams, id, false
		}
		switch frame := frame.(type) {
		case *http2.HeadersFrame:
			streams, id = streams+1, frame.StreamID
		case *http2.DataFrame:
			if frame.StreamEnded() {
				return streams, id, true
			}
		}
	}
}
