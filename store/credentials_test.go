package store_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/store"
)

var revealed = cmpopts.EquateEmpty()

func canary(s string) tokenbroker.Secret { return tokenbroker.NewSecret(s) }

func client(name string) tokenbroker.OAuthClient {
	return tokenbroker.OAuthClient{
		Name: name, Provider: "example", ClientID: "id-1", Auth: tokenbroker.AuthClientSecretBasic,
		Secrets: []tokenbroker.ClientSecret{{ID: "s1", Secret: canary("canary-client"), Fingerprint: "f1", Added: noon}},
		Labels:  map[string]string{"env": "prod"},
	}
}

func TestACredentialComesBackAsItWasMade(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	g := tokenbroker.Grant{RefreshToken: canary("\xff\xfe not UTF-8"), RefreshEnd: noon, Consented: noon}
	made, err := s.CreateCredential(t.Context(), credential("google/reports"), g)
	if err != nil {
		t.Fatal(err)
	}
	if made.UID == "" || made.Version != 1 || made.Generation == 0 || made.Created.IsZero() || made.Updated.IsZero() {
		t.Errorf("made: got %+v, want UID, version 1, generation and times", made)
	}
	p.stop(t)
	s = p.open(t)
	c, got := load(t, s, "google/reports")
	if diff := cmp.Diff(made, c, revealed); diff != "" {
		t.Errorf("credential (-want +got):\n%s", diff)
	}
	want := tokenbroker.Grant{
		UID: made.UID, Serial: 1, RefreshToken: g.RefreshToken, Consented: noon, Exercised: noon, RefreshEnd: noon,
		State: tokenbroker.StatePending, Since: made.Created,
	}
	if diff := cmp.Diff(want, got, revealed); diff != "" {
		t.Errorf("grant (-want +got):\n%s", diff)
	}
	only, err := s.Credential(t.Context(), "google/reports")
	if diff := cmp.Diff(made, only, revealed); diff != "" || err != nil {
		t.Errorf("credential alone: %v (-want +got):\n%s", err, diff)
	}
}

func TestCreateRefuses(t *testing.T) {
	s := newPlace(t).open(t)
	create(t, s, "a")
	if _, err := s.CreateCredential(t.Context(), credential("a"), tokenbroker.Grant{}); !errors.Is(err, tokenbroker.ErrAlreadyExists) {
		t.Errorf("same name: got %v, want ErrAlreadyExists", err)
	}
	if _, err := s.CreateCredential(t.Context(), credential("a!b"), tokenbroker.Grant{}); !errors.Is(err, tokenbroker.ErrInvalidArgument) {
		t.Errorf("bad name: got %v, want ErrInvalidArgument", err)
	}
}

func TestUpdateComparesTheVersion(t *testing.T) {
	s := newPlace(t).open(t)
	made := create(t, s, "a")
	edit := made
	edit.Owner, edit.Disabled, edit.UID, edit.Generation = "someone", true, "forged", 7
	got, err := s.UpdateCredential(t.Context(), edit, 1)
	if err != nil {
		t.Fatal(err)
	}
	want := made
	want.Owner, want.Disabled, want.Version, want.Updated = "someone", true, 2, got.Updated
	if diff := cmp.Diff(want, got, revealed); diff != "" {
		t.Errorf("updated (-want +got):\n%s", diff)
	}
	for _, version := range []uint64{0, 1, 3} {
		if _, err := s.UpdateCredential(t.Context(), edit, version); !errors.Is(err, tokenbroker.ErrETagMismatch) {
			t.Errorf("version %d: got %v, want ErrETagMismatch", version, err)
		}
	}
	edit.Name = "b"
	if _, err := s.UpdateCredential(t.Context(), edit, 1); !errors.Is(err, tokenbroker.ErrNotFound) {
		t.Errorf("absent: got %v, want ErrNotFound", err)
	}
	for sum, err := range s.Summaries(t.Context()) {
		if err != nil || !sum.Disabled {
			t.Errorf("summary: got %+v, %v, want it disabled", sum, err)
		}
	}
}

func TestAnEditThatAsksForOtherTokensRaisesTheGeneration(t *testing.T) {
	for name, tc := range map[string]struct {
		edit  func(*tokenbroker.Credential)
		rises bool
	}{
		"owner":               {func(c *tokenbroker.Credential) { c.Owner = "someone" }, false},
		"labels":              {func(c *tokenbroker.Credential) { c.Labels = map[string]string{"k": "v"} }, false},
		"disabled":            {func(c *tokenbroker.Credential) { c.Disabled = true }, false},
		"scopes in new order": {func(c *tokenbroker.Credential) { slices.Reverse(c.Scopes) }, false},
		"scopes":              {func(c *tokenbroker.Credential) { c.Scopes = []string{"other"} }, true},
		"subject":             {func(c *tokenbroker.Credential) { c.Subject = "other" }, true},
		"audience":            {func(c *tokenbroker.Credential) { c.Audience = "other" }, true},
		"OAuth client":        {func(c *tokenbroker.Credential) { c.Client = "other" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newPlace(t).open(t)
			made := create(t, s, "a")
			edit := made
			edit.Scopes = slices.Clone(made.Scopes)
			tc.edit(&edit)
			got, err := s.UpdateCredential(t.Context(), edit, made.Version)
			if err != nil {
				t.Fatal(err)
			}
			if (got.Generation > made.Generation) != tc.rises {
				t.Errorf("got generation %d after %d, want it to rise = %v", got.Generation, made.Generation, tc.rises)
			}
		})
	}
}

func TestDeleteRemovesEverythingAndNoGenerationComesBack(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	create(t, s, "a-b")
	c := create(t, s, "a")
	o := outcome(c, 1, "", "at", "")
	var last tokenbroker.Generation
	for i := range 3 {
		o.Variant.Subject = fmt.Sprint(i)
		_, tok := commit(t, s, o)
		last = tok.Generation
	}
	if err := s.DeleteCredential(t.Context(), "a", 9); !errors.Is(err, tokenbroker.ErrETagMismatch) {
		t.Errorf("other version: got %v, want ErrETagMismatch", err)
	}
	if err := s.DeleteCredential(t.Context(), "a", 1); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteCredential(t.Context(), "a", 0); !errors.Is(err, tokenbroker.ErrNotFound) {
		t.Errorf("again: got %v, want ErrNotFound", err)
	}
	for _, bucket := range []string{"index", "credential", "grant", "token"} {
		snap, err := p.engine.List(t.Context(), bucket, "", 10)
		if err != nil || slices.ContainsFunc(snap.Entries, func(e store.Entry) bool { return e.Key.Name[:1] == "a" && e.Key.Name != "a-b" }) {
			t.Errorf("bucket %s: got %v, %v, want nothing of a", bucket, snap.Entries, err)
		}
	}
	p.stop(t)
	s = p.open(t)
	again := create(t, s, "a")
	if again.Generation <= last || again.UID == c.UID {
		t.Errorf("re-created: got generation %d and UID %s, want above %d and not %s", again.Generation, again.UID, last, c.UID)
	}
	if _, ok, err := s.Token(t.Context(), "a", again.UID, o.Variant.Key()); ok || err != nil {
		t.Errorf("token of the new one: got %t, %v, want none", ok, err)
	}
	if _, _, err := s.Token(t.Context(), "a", c.UID, o.Variant.Key()); !errors.Is(err, tokenbroker.ErrNotFound) {
		t.Errorf("token of the old one: got %v, want ErrNotFound", err)
	}
}

func TestListsAreInNameOrderAndPaged(t *testing.T) {
	s := newPlace(t).open(t)
	want := []string{"a", "a-b", "a/b", "b", "c"}
	for _, name := range []string{"c", "a/b", "a", "b", "a-b"} {
		create(t, s, name)
		if _, err := s.PutClient(t.Context(), client(name), 0); err != nil {
			t.Fatal(err)
		}
	}
	var creds, clients, sums []string
	for after := ""; ; after = creds[len(creds)-1] {
		cs, err := s.Credentials(t.Context(), after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cs {
			creds = append(creds, c.Name)
		}
		if len(cs) < 2 {
			break
		}
	}
	cs, err := s.Clients(t.Context(), "", 100)
	for _, c := range cs {
		clients = append(clients, c.Name)
	}
	for sum, serr := range s.Summaries(t.Context()) {
		err = errors.Join(err, serr)
		sums = append(sums, sum.Name)
	}
	if err != nil || !slices.Equal(creds, want) || !slices.Equal(clients, want) || !slices.Equal(sums, want) {
		t.Errorf("names: got %q, %q, %q, %v, want %q each", creds, clients, sums, err, want)
	}
}

func TestOAuthClients(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	made, err := s.PutClient(t.Context(), client("app"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutClient(t.Context(), client("app"), 0); !errors.Is(err, tokenbroker.ErrAlreadyExists) {
		t.Errorf("create again: got %v, want ErrAlreadyExists", err)
	}
	edit := made
	edit.UID, edit.ClientID = "forged", "id-2"
	edited, err := s.PutClient(t.Context(), edit, 1)
	if err != nil || edited.UID != made.UID || edited.Version != 2 {
		t.Errorf("edited: got %+v, %v, want version 2 of the same UID", edited, err)
	}
	if _, err := s.PutClient(t.Context(), edit, 1); !errors.Is(err, tokenbroker.ErrETagMismatch) {
		t.Errorf("stale edit: got %v, want ErrETagMismatch", err)
	}
	if _, err := s.PutClient(t.Context(), client("other"), 1); !errors.Is(err, tokenbroker.ErrClientNotFound) {
		t.Errorf("edit of none: got %v, want ErrClientNotFound", err)
	}
	p.stop(t)
	s = p.open(t)
	got, err := s.Client(t.Context(), "app")
	if diff := cmp.Diff(edited, got, revealed); diff != "" || err != nil {
		t.Errorf("client: %v (-want +got):\n%s", err, diff)
	}
	if err := s.DeleteClient(t.Context(), "app", 1); !errors.Is(err, tokenbroker.ErrETagMismatch) {
		t.Errorf("stale delete: got %v, want ErrETagMismatch", err)
	}
	if err := s.DeleteClient(t.Context(), "app", 2); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Client(t.Context(), "app"); !errors.Is(err, tokenbroker.ErrClientNotFound) {
		t.Errorf("after delete: got %v, want ErrClientNotFound", err)
	}
	if err := s.DeleteClient(t.Context(), "app", 0); !errors.Is(err, tokenbroker.ErrClientNotFound) {
		t.Errorf("delete again: got %v, want ErrClientNotFound", err)
	}
}

func TestUnknownCredential(t *testing.T) {
	s := newPlace(t).open(t)
	_, _, loadErr := s.Load(t.Context(), "a")
	_, credErr := s.Credential(t.Context(), "a")
	_, beginErr := s.Begin(t.Context(), tokenbroker.Begin{Credential: "a"})
	_, _, adoptErr := s.Adopt(t.Context(), tokenbroker.Adoption{Credential: "a", RefreshToken: canary("x")})
	for name, err := range map[string]error{"load": loadErr, "credential": credErr, "begin": beginErr, "adopt": adoptErr} {
		if !errors.Is(err, tokenbroker.ErrNotFound) {
			t.Errorf("%s: got %v, want ErrNotFound", name, err)
		}
	}
	if _, err := s.Abort(t.Context(), tokenbroker.Verdict{Credential: "a"}); !errors.Is(err, tokenbroker.ErrSuperseded) {
		t.Errorf("abort: got %v, want ErrSuperseded", err)
	}
}
