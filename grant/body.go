package grant

import (
	"errors"
	"io"
	"strings"
	"sync"
)

var errSealed = errors.New("request body is sealed")

// onceBody is a request body that gives its bytes once. The request has no GetBody, so net/http can't send it again: what was
// read can't be rewound. Sealed before its first read, it gives nothing at all, and the request has certainly not been sent.
type onceBody struct {
	mu      sync.Mutex
	text    *strings.Reader
	started bool // the first byte may have left
	sealed  bool
}

func newOnceBody(text string) *onceBody { return &onceBody{text: strings.NewReader(text)} }

// Read implements io.Reader.
func (b *onceBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sealed {
		return 0, errSealed
	}
	b.started = true
	return b.text.Read(p)
}

// Close implements io.Closer. The transport may close before or after it read.
func (b *onceBody) Close() error { return nil }

// seal ends reading, and reports whether anything may have been sent.
func (b *onceBody) seal() (started bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sealed = true
	return b.started
}

var _ io.ReadCloser = (*onceBody)(nil)
