package bolt

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	defaultTimeout = 3 * time.Second
	fileMode       = 0o600
	looserModes    = 0o077
	// A growing map waits for open readers. Address space costs nothing on 64 bits, so begin with plenty.
	initialMap = 1 << 30
)

// Options are the choices of Open. The zero value is good.
type Options struct {
	Timeout time.Duration // how long to wait for a process that holds the file; 0 = 3 s
	MaxSize int64         // bytes that the file may grow to, but for what is vital and the few pages that a delete takes; 0 = no limit but the disk
}

// Open opens the file at path, or makes it if there is none. The folder must exist. Close it.
func Open(path string, o Options) (*Engine, error) {
	if err := prepare(path, o); err != nil {
		return nil, fmt.Errorf("open store file %s: %w", path, err)
	}
	db, err := openFile(path, o)
	if err != nil {
		return nil, fmt.Errorf("open store file %s: %w", path, err)
	}
	e := &Engine{db: db, path: path, seat: make(chan struct{}, 1), closed: make(chan struct{})}
	if err := e.check(); err != nil {
		return nil, errors.Join(fmt.Errorf("open store file %s: %w", path, err), guarded(db.Close))
	}
	return e, nil
}

// prepare makes the file if there is none, and looks at what there is.
func prepare(path string, o Options) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return create(path, o)
	}
	if err != nil {
		return err
	}
	switch {
	case !info.Mode().IsRegular():
		return errors.New("not a regular file: name the file itself")
	case info.Size() == 0:
		return errors.New("is empty, which a store never is: restore it from a backup, or remove it to begin with a new store")
	case info.Mode().Perm()&looserModes != 0:
		return os.Chmod(path, fileMode)
	}
	return nil
}

// create makes the file under another name and links it into place when it is whole: a crash in between leaves no half
// file under path, and of two processes that create at once one wins and the other uses its file.
func create(path string, o Options) error {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if err := tmp.Close(); err != nil {
		return err
	}
	db, err := openFile(tmp.Name(), o)
	if err != nil {
		return err
	}
	if err := errors.Join(db.Sync(), db.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func openFile(path string, o Options) (db *bbolt.DB, err error) {
	timeout := cmp.Or(o.Timeout, defaultTimeout)
	err = guarded(func() error {
		db, err = bbolt.Open(path, fileMode, &bbolt.Options{
			Timeout:         timeout,
			FreelistType:    bbolt.FreelistMapType,
			InitialMmapSize: initialMap,
			MaxSize:         int(o.MaxSize),
		})
		return err
	})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("another process holds it, waited %s: stop that process, or give this one a file of its own", timeout)
	}
	return db, err
}

// check sees that the file is as long and as new as its newest meta page says, and learns the revision.
func (e *Engine) check() error {
	return e.view(func(tx *bbolt.Tx) error {
		info, err := os.Stat(e.path)
		if err != nil {
			return err
		}
		if info.Size() < tx.Size() {
			return fmt.Errorf("is cut off: %d of %d bytes are there: restore it from a backup", info.Size(), tx.Size())
		}
		if err := current(tx); err != nil {
			return err
		}
		e.history.start(revision(tx))
		return nil
	})
}

// errDamaged marks what guarded recovered from.
var errDamaged = errors.New("the file is damaged: restore it from a backup")

// guarded turns a panic of bbolt, or a fault in the mapped file, into an error.
func guarded(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w (bbolt: %v)", errDamaged, r)
		}
	}()
	return fn()
}
