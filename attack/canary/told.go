package canary

import (
	"fmt"
	"strings"
	"sync"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// Told keeps what clients were told, to be searched. The zero value is ready for use, also by many goroutines.
type Told struct {
	mu   sync.Mutex
	text strings.Builder
}

// Err keeps an error with all its details. nil is nothing.
func (d *Told) Err(err error) {
	if err != nil {
		d.add(fmt.Sprintf("%v %s\n", err, prototext.Format(status.Convert(err).Proto()))) //nolint:forbidigo // to be searched for secrets
	}
}

// Reply keeps a reply that has to be without secrets.
func (d *Told) Reply(m proto.Message) {
	d.add(prototext.Format(m)) //nolint:forbidigo // to be searched for secrets
}

func (d *Told) add(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.text.WriteString(text)
}

// Text is all of it.
func (d *Told) Text() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text.String()
}
