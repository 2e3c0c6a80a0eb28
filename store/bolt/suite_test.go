package bolt_test

import (
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/tokenbroker/tokenbroker/store/bolt"
	"github.com/tokenbroker/tokenbroker/store/storetest"
)

func TestMain(m *testing.M) {
	holdFileIfAsked()
	goleak.VerifyTestMain(m)
}

func TestBoltKeepsTheEngineContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T, dir string) storetest.Engine { return openIn(t, dir) })
}

func openIn(t testing.TB, dir string) *bolt.Engine {
	t.Helper()
	e, err := bolt.Open(filepath.Join(dir, "store.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}
