package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/store"
)

// Checkpoints are the signed statements about the audit log, by which it is noticed that the log was cut off or written anew. The zero
// value is none.
type Checkpoints struct {
	KeyFile string // the Ed25519 key that signs; made if it is not there, with the public key beside it
	File    string // the second place, which whoever could rewrite the log should not reach; "" = they are in the log alone
}

// keyRotation is how often it is asked whether the key that names tokens is of a former quarter.
const keyRotation = time.Hour

// openAudit opens the audit log, what reads it back, and the keys that name tokens in it.
func (d *Daemon) openAudit(ctx context.Context, records *store.Store) (err error) {
	if d.sink, err = audit.OpenFile(d.cfg.AuditFile); err != nil {
		return fmt.Errorf("open the audit log: %w", err)
	}
	d.closers = append(d.closers, func() { _ = d.sink.Close() })
	if err := d.sink.Lock(); err != nil {
		return err
	}
	points := audit.Checkpoints{Store: records.Boot}
	if d.cfg.Checkpoints.KeyFile != "" {
		if points.Signer, err = audit.OpenSigner(d.cfg.Checkpoints.KeyFile); err != nil {
			return fmt.Errorf("audit.checkpoint_key_file: %w", err)
		}
	}
	if d.cfg.Checkpoints.File != "" {
		place := audit.NewPlace(d.cfg.Checkpoints.File)
		d.witness = audit.NewWitness(place, audit.WitnessOptions{Failed: d.checkpointFailed})
		d.closers = append(d.closers, func() { _ = place.Close() })
		points.Out = d.witness.Take
	}
	d.audit = audit.New(d.sink, audit.Options{Sync: d.cfg.AuditSync, Tail: d.sink.Tail(), Checkpoints: points, Deleted: d.auditDeleted})
	d.trail = &audit.Trail{Path: d.cfg.AuditFile, Log: d.audit}
	d.auditKeys = records
	return d.loadAuditKeys(ctx)
}

// auditKeeper keeps the keys that name tokens.
type auditKeeper interface {
	AuditKeys(ctx context.Context) ([][]byte, error)
	PutAuditKeys(ctx context.Context, keys [][]byte) error
}

// loadAuditKeys opens the keys, and makes a new one when it is time. Keys that do not open are lost: what they named can't be found any
// more, which is no reason to hand out nothing.
func (d *Daemon) loadAuditKeys(ctx context.Context) error {
	list, err := d.auditKeys.AuditKeys(ctx)
	if err != nil && !errors.Is(err, tokenbroker.ErrTampered) {
		return err
	}
	if err == nil {
		d.keys, err = audit.NewKeys(list)
	}
	if err != nil {
		d.log.Error("the keys that name tokens in the audit log do not open: tokens of before can't be looked up any more", "error", err)
		if d.keys, err = audit.NewKeys(nil); err != nil {
			return err
		}
	}
	_, err = d.rotateAuditKey(ctx)
	return err
}

// rotateAuditKey makes a new key in each quarter of the year.
func (d *Daemon) rotateAuditKey(ctx context.Context) (rotated bool, err error) {
	if !d.keys.Due(time.Now()) {
		return false, nil
	}
	err = d.keys.Rotate(time.Now(), func(list [][]byte) error { return d.auditKeys.PutAuditKeys(ctx, list) })
	return err == nil, err
}

// watchAuditKey rotates the key until ctx ends.
func (d *Daemon) watchAuditKey(ctx context.Context) {
	tick := time.NewTicker(keyRotation)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		rotated, err := d.rotateAuditKey(ctx)
		switch {
		case err != nil:
			d.log.Error("no new key to name tokens in the audit log, the last one stays in use", "error", err)
		case rotated:
			_ = d.audit.Write(ctx, system("audit.key", "a new key names tokens"))
		}
	}
}

// mac names a token in the audit log.
func (d *Daemon) mac(token tokenbroker.Secret) string { return d.keys.MAC(token.Reveal()) }

// checkpointFailed tells that the second place did not take a checkpoint. It is tried again.
func (d *Daemon) checkpointFailed(err error) {
	d.metrics.checkpointFailures.Inc()
	d.checkpoints.Do(func() {
		d.log.Warn("checkpoints of the audit log do not get to their second place: they wait", "error", err)
	})
}

// auditDeleted tells that the audit log was deleted while it was written. The log goes on in a new file.
func (d *Daemon) auditDeleted() {
	d.metrics.trouble.WithLabelValues("audit_deleted").Inc()
	d.log.Error("the audit log was deleted while it was written, with the records in it: a new file goes on", "file", d.cfg.AuditFile)
}

// checkAudit says what is wrong with the places of the audit log, without touching them.
func checkAudit(cfg Config) error {
	var errs []error
	for _, f := range []struct{ key, path string }{{"audit.file", cfg.AuditFile}, {"audit.checkpoint_file", cfg.Checkpoints.File},
		{"audit.checkpoint_key_file", cfg.Checkpoints.KeyFile}} {
		if f.path == "" {
			continue
		}
		err := checkPlace(f.path)
		if err == nil && f.key == "audit.checkpoint_key_file" {
			err = audit.CheckSigner(f.path)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.key, err))
		}
	}
	if cfg.Checkpoints.File != "" && cfg.Checkpoints.KeyFile == "" {
		errs = append(errs, errors.New("audit.checkpoint_file is of no use without audit.checkpoint_key_file"))
	}
	if cfg.Checkpoints.File != "" && filepath.Clean(cfg.Checkpoints.File) == filepath.Clean(cfg.AuditFile) {
		errs = append(errs, errors.New("audit.checkpoint_file has to be another file than audit.file"))
	}
	return errors.Join(errs...)
}

// checkPlace says why there can't be a file.
func checkPlace(path string) error {
	switch info, err := os.Stat(path); {
	case err == nil && info.IsDir():
		return fmt.Errorf("%s is a folder", path)
	case err == nil || !errors.Is(err, fs.ErrNotExist):
		return err
	}
	info, err := os.Stat(filepath.Dir(path))
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is no folder", filepath.Dir(path))
	}
	return err
}
