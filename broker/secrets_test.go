package broker_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

func newKey(t *testing.T) tokenbroker.Secret {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	fatal(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	fatal(t, err)
	return tokenbroker.NewSecret(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

// serviceAccount makes the OAuth client "app" with a key.
func (w *world) serviceAccount(key tokenbroker.Secret) {
	w.t.Helper()
	_, err := w.b.CreateClient(w.t.Context(), tokenbroker.OAuthClient{Name: "app", Provider: "acme", ClientID: "robot@acme",
		Auth: tokenbroker.AuthServiceAccount}, broker.NewSecret{PrivateKey: key, KeyID: "k1"}, false)
	fatal(w.t, err)
}

func TestKeysTakeTurns(t *testing.T) {
	first, second := newKey(t), newKey(t)
	for _, code := range []tokenbroker.Failure{
		{Class: tokenbroker.ClassConfiguration, Code: "invalid_grant", Cause: "key_unknown", Sent: true},
		{Class: tokenbroker.ClassConfiguration, Code: "disabled_client", Cause: "key_disabled", Sent: true},
	} {
		t.Run(string(code.Cause), func(t *testing.T) {
			run(t, plan{}, func(t *testing.T, w *world) {
				w.serviceAccount(first)
				c, err := w.b.AddSecret(t.Context(), "app", broker.NewSecret{PrivateKey: second, KeyID: "k2"})
				fatal(t, err)
				if c.Secrets[1].Kind != tokenbroker.KindKey || c.Secrets[1].KeyID != "k2" || c.Secrets[1].Fingerprint == "" || !c.Secrets[1].Secret.IsZero() {
					t.Errorf("got %+v, want a key with its id and fingerprint, and not the key", c.Secrets[1])
				}
				w.up.use(func(ctx context.Context, n int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
					if r.Secret.KeyID == "k2" {
						return tokenbroker.ExchangeReply{Sent: time.Now()}, &code
					}
					return gives(time.Hour, false)(ctx, n, r)
				})
				w.made(tokenbroker.GrantJWTBearer, "", nil)
				w.get()
				w.wantSent(2)
				tried := w.log.of(broker.EventIntent)
				if len(tried) != 2 || tried[0].Attempt == tried[1].Attempt {
					t.Errorf("got %d attempts, want each key its own", len(tried))
				}
				w.wantState(tokenbroker.StateReady)
				w.subscribe(nil)
				w.pass(55 * time.Minute)
				if q, _ := w.up.request(3); q.Secret.KeyID != "k1" {
					t.Errorf("got key %s first, want the one that worked", q.Secret.KeyID)
				}
				w.wantSent(3)
			})
		})
	}
}

func TestAnAssertionThatIsRefusedAsksNobodyToConsent(t *testing.T) {
	key := newKey(t)
	run(t, plan{answer: failure(tokenbroker.ClassDeadGrant, "invalid_grant")}, func(t *testing.T, w *world) {
		w.serviceAccount(key)
		w.made(tokenbroker.GrantJWTBearer, "", nil)
		w.wantState(tokenbroker.StateMisconfigured)
		_, err := w.ask(broker.Request{})
		wantCode(t, err, tokenbroker.ErrMisconfigured, "invalid_grant")
	})
}

func TestSecretsThatExpiredGoLast(t *testing.T) {
	run(t, plan{answer: gives(time.Hour, false)}, func(t *testing.T, w *world) {
		w.client()
		_, err := w.b.AddSecret(t.Context(), "app", broker.NewSecret{Secret: tokenbroker.NewSecret("brief"), Expiry: time.Now().Add(day)})
		fatal(t, err)
		w.createOnlyMachine("a")
		w.get()
		w.pass(25 * time.Hour)
		w.get()
		one, _ := w.up.request(1)
		last, _ := w.up.request(w.up.count())
		if one.Secret.Secret.Reveal() != "brief" || last.Secret.Secret.Reveal() != "s3cret" {
			t.Errorf("got the newest first: %t, and the one that has not expired after that: %t; want both",
				one.Secret.Secret.Reveal() == "brief", last.Secret.Secret.Reveal() == "s3cret")
		}
	})
}

func (w *world) createOnlyMachine(scopes ...string) {
	w.t.Helper()
	n := w.credential(scopes...)
	n.Credential.Grant, n.RefreshToken = tokenbroker.GrantClientCredentials, tokenbroker.Secret{}
	_, err := w.b.CreateCredential(w.t.Context(), n)
	fatal(w.t, err)
	w.settle()
}

func TestBadSecretsAreRefused(t *testing.T) {
	key := newKey(t)
	text := tokenbroker.NewSecret("x")
	run(t, plan{}, func(t *testing.T, w *world) {
		w.client()
		_, err := w.b.CreateClient(t.Context(), tokenbroker.OAuthClient{Name: "robot", Provider: "acme", ClientID: "robot@acme",
			Auth: tokenbroker.AuthServiceAccount}, broker.NewSecret{PrivateKey: key}, false)
		fatal(t, err)
		for _, c := range []struct {
			name, client string
			secret       broker.NewSecret
			field        string
		}{
			{"none", "app", broker.NewSecret{}, "clientSecret"},
			{"no key", "robot", broker.NewSecret{}, "privateKey"},
			{"a secret for a client with keys", "robot", broker.NewSecret{Secret: text}, "clientSecret"},
			{"both", "app", broker.NewSecret{Secret: text, PrivateKey: key}, "privateKey"},
			{"no key at all", "robot", broker.NewSecret{PrivateKey: text}, "privateKey"},
			{"the same key", "robot", broker.NewSecret{PrivateKey: key}, "privateKey"},
			{"the same secret", "app", broker.NewSecret{Secret: tokenbroker.NewSecret("s3cret")}, "clientSecret"},
			{"expired", "app", broker.NewSecret{Secret: text, Expiry: time.Now()}, "secretExpireTime"},
			{"a negative rule", "app", broker.NewSecret{Secret: text, RotateAfter: -1}, "rotateAfter"},
		} {
			_, err := w.b.AddSecret(t.Context(), c.client, c.secret)
			var p *tokenbroker.Problem
			if !errors.Is(err, tokenbroker.ErrInvalidArgument) || !errors.As(err, &p) || p.Field != c.field {
				t.Errorf("%s: got %v, want field %s at fault", c.name, err, c.field)
			}
		}
	})
}

// TestAKeyBesideASecretIsNotShown: it signs the assertion of the grant, and what the client shows is its secret.
func TestAKeyBesideASecretIsNotShown(t *testing.T) {
	key := newKey(t)
	run(t, plan{answer: failure(tokenbroker.ClassConfiguration, "invalid_client")}, func(t *testing.T, w *world) {
		w.client()
		c, err := w.b.AddSecret(t.Context(), "app", broker.NewSecret{PrivateKey: key})
		fatal(t, err)
		if n := len(c.Secrets); n != 2 || c.Secrets[n-1].Kind != tokenbroker.KindKey {
			t.Fatalf("got %d secrets, want the key as the second", n)
		}
		w.createOnlyMachine("a")
		_, err = w.ask(broker.Request{})
		wantCode(t, err, tokenbroker.ErrMisconfigured, "invalid_client")
		for i := 1; i <= w.up.count(); i++ {
			r, _ := w.up.request(i)
			if r.Secret.Secret.Reveal() != "s3cret" || len(r.Client.Secrets) != 2 {
				t.Errorf("request %d was made with a %q of %d secrets", i, r.Secret.Kind, len(r.Client.Secrets))
			}
		}
	})
}

func TestSecretsAreWarnedOfBeforeTheyAreDue(t *testing.T) {
	run(t, plan{}, func(t *testing.T, w *world) {
		w.client()
		_, err := w.b.AddSecret(t.Context(), "app", broker.NewSecret{Secret: tokenbroker.NewSecret("by rule"), RotateAfter: 90 * day, Expiry: time.Now().Add(400 * day)})
		fatal(t, err)
		due := time.Now().Add(90 * day)
		told := func() (n int) {
			for _, ev := range w.log.of(broker.EventSecret) {
				if ev.Client != "app" || ev.SecretID == "" || ev.Fingerprint == "" || !ev.Expiry.Equal(due) || ev.Code != "secret" {
					t.Errorf("got %+v, want one of the secret due at %v", ev, due)
				}
				n++
			}
			return n
		}
		for i, at := range []int{30, 7, 1} {
			w.pass(time.Until(due) - time.Duration(at)*day - time.Minute)
			if got := told(); got != i {
				t.Errorf("just before %d days: got %d warnings, want %d", at, got, i)
			}
			w.pass(2 * time.Minute)
			if got := told(); got != i+1 {
				t.Errorf("%d days before: got %d warnings, want %d", at, got, i+1)
			}
		}
		w.restart()
		w.pass(time.Minute)
		if got := told(); got != 4 {
			t.Errorf("got %d warnings after a restart, want one more", got)
		}
		w.pass(10 * day)
		if got := told(); got != 4 {
			t.Errorf("got %d warnings later on, want no more", got)
		}
		fatal(t, w.b.DeleteClient(t.Context(), "app", 0))
		if got := w.b.Scheduled(); got != 0 {
			t.Errorf("got %d items on the schedule, want none", got)
		}
	})
}

// What lives shorter than a warning comes before its end is not warned of as soon as it is there.
func TestABriefSecretIsNotWarnedOfAtOnce(t *testing.T) {
	run(t, plan{}, func(t *testing.T, w *world) {
		w.client()
		_, err := w.b.AddSecret(t.Context(), "app", broker.NewSecret{Secret: tokenbroker.NewSecret("brief"), Expiry: time.Now().Add(10 * day)})
		fatal(t, err)
		for _, want := range []int{0, 1, 1, 2} { // after 1, 4, 7 and 10 days
			w.pass(day)
			if got := len(w.log.of(broker.EventSecret)); got != want {
				t.Errorf("got %d warnings, want %d", got, want)
			}
			w.pass(2 * day)
		}
	})
}

func TestWarningsOfManyClientsCostOneItem(t *testing.T) {
	run(t, plan{}, func(t *testing.T, w *world) {
		for _, name := range []string{"one", "two", "three"} {
			_, err := w.b.CreateClient(t.Context(), tokenbroker.OAuthClient{Name: name, Provider: "acme", ClientID: name, Auth: tokenbroker.AuthClientSecretBasic},
				broker.NewSecret{Secret: tokenbroker.NewSecret("s"), Expiry: time.Now().Add(40 * day)}, false)
			fatal(t, err)
		}
		w.settle()
		if got := w.b.Scheduled(); got != 1 {
			t.Errorf("got %d items, want 1", got)
		}
		w.pass(11 * day)
		var names []string
		for _, ev := range w.log.of(broker.EventSecret) {
			names = append(names, ev.Client)
		}
		slices.Sort(names)
		if !slices.Equal(names, []string{"one", "three", "two"}) {
			t.Errorf("got warnings of %v, want one of each", names)
		}
	})
}
