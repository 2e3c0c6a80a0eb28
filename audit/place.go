package audit

import (
	"context"
	"time"
)

// witnessPatience is for a second place that hangs when the log has ended.
const witnessPatience = 5 * time.Second

// Place is a file for a [Witness]. It is opened when there is something for it: it may lie on what is not there yet.
type Place struct {
	path string
	file *File
}

// NewPlace returns the place at path. Nothing is opened.
func NewPlace(path string) *Place { return &Place{path: path} }

// Write implements io.Writer.
func (p *Place) Write(line []byte) (int, error) {
	if p.file == nil {
		f, err := OpenFile(p.path)
		if err != nil {
			return 0, err
		}
		p.file = f
	}
	return p.file.Write(line)
}

// Sync makes durable what was written.
func (p *Place) Sync() error { return p.file.Sync() }

// Close closes the file, if it was opened.
func (p *Place) Close() error {
	if p.file == nil {
		return nil
	}
	return p.file.Close()
}

// RunWitnessed is Run with a witness beside it, which brings the checkpoints away until the last one is there, or its place hangs. Without a witness
// it is Run.
func (l *Log) RunWitnessed(ctx context.Context, w *Witness) error {
	if w == nil {
		return l.Run(ctx)
	}
	later, end := context.WithCancel(context.WithoutCancel(ctx))
	gone := make(chan struct{})
	go func() { // left behind if that place hangs: nothing else can be done
		defer close(gone)
		_ = w.Run(later)
	}()
	err := l.Run(ctx)
	end()
	patience := time.NewTimer(witnessPatience)
	defer patience.Stop()
	select {
	case <-gone:
	case <-patience.C:
	}
	return err
}
