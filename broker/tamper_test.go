package broker_test

import (
	"errors"
	"testing"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/store"
)

// flip changes a bit of a sealed record.
func (w *world) flip(bucket, name string) {
	w.t.Helper()
	key := store.Key{Bucket: bucket, Name: name}
	snap, err := w.engine.Read(w.t.Context(), key)
	fatal(w.t, err)
	value := append([]byte(nil), snap.Entries[0].Value...)
	if len(value) == 0 {
		w.t.Fatalf("there is no record %v", key)
	}
	value[len(value)-1] ^= 1
	_, err = w.engine.Txn(w.t.Context(), store.Txn{Do: []store.Op{{Key: key, Value: value}}})
	fatal(w.t, err)
}

// One summary that does not open costs its credential, not the start of the broker.
func TestOneBadSummaryDoesNotStopTheStart(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		n := w.credential("a")
		n.Credential.Name = "acme/other"
		_, err := w.b.CreateCredential(t.Context(), n)
		fatal(t, err)
		w.settle()
		w.down()
		w.flip("index", "acme/other")
		w.boot()
		w.get()
		other := broker.Request{Selection: broker.Selection{Credential: "acme/other"}}
		if _, err := w.ask(other); !errors.Is(err, tokenbroker.ErrQuarantined) {
			t.Errorf("got %v, want ErrQuarantined", err)
		}
		if evs := w.log.of(broker.EventTampered); len(evs) == 0 || evs[0].Credential != "acme/other" || evs[0].Code != "tampered" {
			t.Errorf("got events %+v, want one that names the credential", evs)
		}
		if err := w.b.DeleteClient(t.Context(), "app", 0); !errors.Is(err, tokenbroker.ErrInUse) {
			t.Errorf("got %v for a client that a credential may use which does not open, want ErrInUse", err)
		}
		fatal(t, w.b.DeleteCredential(t.Context(), "acme/other", 0))
		n = w.credential("a")
		n.Credential.Name = "acme/other"
		_, err = w.b.CreateCredential(t.Context(), n)
		fatal(t, err)
		w.settle()
		if _, err := w.ask(other); err != nil {
			t.Errorf("got %v after it was created anew, want a token", err)
		}
	})
}

func TestOneBadClientIsLeftOutOfTheList(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		for _, name := range []string{"a", "b", "c"} {
			_, err := w.b.CreateClient(t.Context(), tokenbroker.OAuthClient{Name: name, Provider: "acme", ClientID: "app",
				Auth: tokenbroker.AuthClientSecretBasic}, broker.NewSecret{Secret: tokenbroker.NewSecret("s3cret")}, false)
			fatal(t, err)
		}
		w.flip("client", "b")
		var names []string
		for after := ""; ; {
			list, next, err := w.b.ListClients(t.Context(), after, 1, func(string) bool { return true })
			fatal(t, err)
			for _, c := range list {
				names = append(names, c.Name)
			}
			if after = next; next == "" {
				break
			}
		}
		if len(names) != 2 || names[0] != "a" || names[1] != "c" {
			t.Errorf("got %v, want a and c", names)
		}
		if len(w.log.of(broker.EventTampered)) == 0 {
			t.Error("nobody was told")
		}
	})
}
