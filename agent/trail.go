package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
)

// Checkpoints are the signed statements about the agent's trail, by which it is noticed that the trail was cut off or written anew. The zero value
// is none.
type Checkpoints struct {
	KeyFile string // the Ed25519 key that signs; made if it is not there, with the public key beside it
	File    string // the second place, which whoever could rewrite the trail should not reach; "" = they are in the trail alone
}

func (c Checkpoints) check(trail string) error {
	switch {
	case c.File != "" && c.KeyFile == "":
		return errors.New("audit.checkpoint_file is of no use without audit.checkpoint_key_file")
	case c.File != "" && filepath.Clean(c.File) == filepath.Clean(trail):
		return errors.New("audit.checkpoint_file has to be another file than the trail")
	}
	return nil
}

func (a *Agent) openTrail(context.Context) (err error) {
	if a.sink, err = audit.OpenFile(a.cfg.AuditFile); err != nil {
		return fmt.Errorf("open the audit log: %w", err)
	}
	if err := a.sink.Lock(); err != nil {
		return fmt.Errorf("%w: give this one a file of its own with --audit FILE", err)
	}
	opts := audit.Options{Tail: a.sink.Tail(), Deleted: a.trailDeleted}
	if opts.Checkpoints, err = a.openCheckpoints(); err != nil {
		return err
	}
	a.log = audit.New(a.sink, opts)
	return nil
}

// openCheckpoints says what is signed, and where that goes.
func (a *Agent) openCheckpoints() (audit.Checkpoints, error) {
	var points audit.Checkpoints
	c := a.cfg.Checkpoints
	if err := c.check(a.cfg.AuditFile); err != nil || c.KeyFile == "" {
		return points, tokenbroker.Invalid("Checkpoints", err)
	}
	signer, err := audit.OpenSigner(c.KeyFile)
	if err != nil {
		return points, fmt.Errorf("audit.checkpoint_key_file: %w", err)
	}
	points.Signer = signer
	if c.File != "" {
		a.place = audit.NewPlace(c.File)
		a.witness = audit.NewWitness(a.place, audit.WitnessOptions{Failed: a.checkpointFailed})
		points.Out = a.witness.Take
	}
	return points, nil
}

// checkpointFailed tells that the second place did not take a checkpoint. It is tried again.
func (a *Agent) checkpointFailed(err error) {
	a.unplaced.Do(func() {
		a.cfg.Log.Warn("checkpoints of the audit trail do not get to their second place: they wait", "file", a.cfg.Checkpoints.File, "error", err)
	})
}

// trailDeleted tells that the trail was deleted while it was written. It goes on in a new file.
func (a *Agent) trailDeleted() {
	a.cfg.Log.Error("the audit trail was deleted while it was written, with the records in it: a new file goes on", "file", a.cfg.AuditFile)
}

// unrecorded is what a job is told of a trail that can't be written, which it must not take for the broker's. The agent's log says more.
const unrecorded = "the agent's audit log can't be written: nothing is handed out until it can"

// lookAtTrail is between looks at whether the trail can be written again.
const lookAtTrail = time.Second

// trailNews tells the log when the trail can't be written, and when it can again: one line each.
type trailNews struct {
	log  *slog.Logger
	file string

	mu  sync.Mutex
	ill bool
}

// note takes up how the trail is.
func (n *trailNews) note(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case err != nil && !n.ill:
		n.log.Error("the audit trail can't be written: nothing is handed out", "file", n.file, "error", err)
	case err == nil && n.ill:
		n.log.Info("the audit trail can be written again", "file", n.file)
	}
	n.ill = err != nil
}

// watchTrail looks at the trail until ctx ends. What a record meets is noted at once; here it shows when that is over.
func (a *Agent) watchTrail(ctx context.Context) error {
	tick := time.NewTicker(lookAtTrail)
	defer tick.Stop()
	for {
		err := a.log.Healthy()
		if ctx.Err() != nil { // the trail ends, too
			return nil
		}
		a.news.note(err)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}
