package store_test

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/store"
)

func consentOf(id string) tokenbroker.Consent {
	return tokenbroker.Consent{ID: id, Credential: "a", UID: "u", Provider: "example", Client: "app", Flow: tokenbroker.FlowLink, State: tokenbroker.ConsentAwaiting,
		Code: "c", BegunBy: "spiffe://example.org/ann", Scopes: []string{"read"}, RedirectURI: "https://x.example/callback", ExpectedAccount: "e", ReplaceAccount: true,
		Account: "ann", Granted: []string{"read"}, Missing: []string{"write"}, Trial: "READY", Created: noon, Expiry: noon.Add(time.Hour), Ended: noon,
		Step: tokenbroker.StepAdopting, StepTime: noon, State256: []byte("s"), StateExpiry: noon, Link256: []byte("l"), Browser256: []byte("b"),
		Verifier: tokenbroker.NewSecret("verifier-in-the-clear"), Nonce: "nonce-in-the-clear", DeviceCode: tokenbroker.NewSecret("device-in-the-clear"), Interval: time.Second,
		Grant: &tokenbroker.Adoption{RefreshToken: tokenbroker.NewSecret("refresh-in-the-clear"), RefreshEnd: noon, Account: "ann", Granted: []string{"read"}, SecretID: "one",
			Token: &tokenbroker.Token{AccessToken: tokenbroker.NewSecret("access-in-the-clear"), Type: "Bearer", Expiry: noon, Obtained: noon}}}
}

func TestAConsentIsKeptWholeAndSealed(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	want := consentOf("one")
	put, err := s.PutConsent(t.Context(), want, 0)
	if err != nil || put.Version != 1 {
		t.Fatalf("put: version %d (%v)", put.Version, err)
	}
	data := p.stop(t)
	for _, secret := range []string{"verifier", "nonce", "device", "refresh", "access"} {
		if bytes.Contains(data, []byte(secret+"-in-the-clear")) {
			t.Errorf("the %s is in the file", secret)
		}
	}
	s = p.open(t)
	got, err := s.Consent(t.Context(), "one")
	want.Version = 1
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(tokenbroker.Secret{}), cmp.Comparer(tokenbroker.Secret.Equal)); err != nil || diff != "" {
		t.Errorf("consent (-want +got):\n%s (%v)", diff, err)
	}
}

func TestOfManyWritersOfAConsentOneWins(t *testing.T) {
	s := newPlace(t).open(t)
	c, err := s.PutConsent(t.Context(), consentOf("one"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutConsent(t.Context(), consentOf("one"), 0); !errors.Is(err, tokenbroker.ErrAlreadyExists) {
		t.Errorf("a second of that id: %v", err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 16 {
		wg.Go(func() {
			_, err := s.PutConsent(t.Context(), c, c.Version)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won++
			case !errors.Is(err, tokenbroker.ErrETagMismatch):
				t.Errorf("a loser: %v", err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d writers won, want 1", won)
	}
}

func TestConsentsAreListedAndDeleted(t *testing.T) {
	s := newPlace(t).open(t)
	for _, id := range []string{"one", "two", "three"} {
		if _, err := s.PutConsent(t.Context(), consentOf(id), 0); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := s.DeleteConsent(t.Context(), "two"); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	var ids []string
	for c, err := range s.Consents(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, c.ID)
	}
	if slices.Sort(ids); !slices.Equal(ids, []string{"one", "three"}) {
		t.Errorf("got %v", ids)
	}
	for _, id := range []string{"two", "", string(make([]byte, 5000))} {
		if _, err := s.Consent(t.Context(), id); !errors.Is(err, tokenbroker.ErrConsentNotFound) {
			t.Errorf("id of %d bytes: %v", len(id), err)
		}
	}
	if _, err := s.PutConsent(t.Context(), consentOf("two"), 3); !errors.Is(err, tokenbroker.ErrConsentNotFound) {
		t.Errorf("put of one that is gone: %v", err)
	}
}

func TestAConsentThatWasChangedOrMovedDoesNotOpen(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	for _, id := range []string{"one", "two"} {
		if _, err := s.PutConsent(t.Context(), consentOf(id), 0); err != nil {
			t.Fatal(err)
		}
	}
	one, two := store.Key{Bucket: "consent", Name: "one"}, store.Key{Bucket: "consent", Name: "two"}
	if _, err := p.engine.Txn(t.Context(), store.Txn{Do: []store.Op{{Key: one, Value: raw(t, p.engine, two).Value}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Consent(t.Context(), "one"); !errors.Is(err, tokenbroker.ErrTampered) {
		t.Errorf("one with the record of two: %v", err)
	}
	good, bad := 0, 0
	for c, err := range s.Consents(t.Context()) {
		switch {
		case errors.Is(err, tokenbroker.ErrTampered) && c.ID == "one":
			bad++
		case err == nil:
			good++
		}
	}
	if good != 1 || bad != 1 {
		t.Errorf("listed %d good and %d bad, want 1 and 1", good, bad)
	}
	if err := s.DeleteConsent(t.Context(), "one"); err != nil {
		t.Errorf("delete one that does not open: %v", err)
	}
}
