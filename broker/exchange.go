package broker

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// try is one exchange on behalf of one variant, with what it was begun with.
type try struct {
	v        *variant
	want     want
	cred     tokenbroker.Credential
	client   tokenbroker.OAuthClient
	serial   uint64
	rotating bool
	replay   bool                // the answer to an earlier send of this refresh token was lost
	intent   *tokenbroker.Intent // as written for this attempt
	last     bool                // there is no further client secret to try
	attempt  string
	sent     tokenbroker.Secret // what the grant lives on, as it was sent
	began    time.Time
	subject  *tokenbroker.Token // of the source; nil if the credential has none
}

// exchange sends a token request, a second one only if the first client secret was refused as such.
func (b *Broker) exchange(ctx context.Context, t try, at *turn) (*Snapshot, error) {
	var err error
	if t.client, err = b.clientOf(ctx, t.cred); err != nil {
		at.unused()
		return nil, err
	}
	secrets := t.v.e.secretsToTry(t.client)
	for i, secret := range secrets {
		t.attempt, t.last = rand.Text(), i == len(secrets)-1
		var s *Snapshot
		if s, err = b.attempt(ctx, t, secret, at); err == nil || !refusedSecret(err) {
			return s, err
		}
	}
	return nil, err
}

// clientOf reads a credential's OAuth client; the zero client if it has none.
func (b *Broker) clientOf(ctx context.Context, c tokenbroker.Credential) (tokenbroker.OAuthClient, error) {
	if c.Client == "" {
		return tokenbroker.OAuthClient{}, nil
	}
	return b.cfg.Store.Client(ctx, c.Client)
}

func (b *Broker) newTry(v *variant, w want, subject *tokenbroker.Token) try {
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	v.attempted = time.Now()
	return try{v: v, want: w, cred: v.e.cred, serial: v.e.grant.Serial, rotating: v.e.rotating(),
		replay: v.e.grant.Intent != nil, began: v.attempted, subject: subject}
}

// secretsToTry orders a client's secrets: the one that worked last, then the newest first, and those that have expired at the end. Who
// has none gets an empty one.
func (e *entry) secretsToTry(c tokenbroker.OAuthClient) []tokenbroker.ClientSecret {
	if c.Auth.Public() || len(c.Secrets) == 0 {
		return []tokenbroker.ClientSecret{{}}
	}
	e.mu.Lock()
	last := e.grant.SecretID
	e.mu.Unlock()
	now := time.Now()
	rank := func(s tokenbroker.ClientSecret) int {
		switch {
		case !s.Expiry.IsZero() && !now.Before(s.Expiry):
			return 2
		case s.ID == last:
			return 0
		}
		return 1
	}
	beside := func(s tokenbroker.ClientSecret) bool {
		return c.Auth.Kind() == tokenbroker.KindSecret && s.Kind != "" && s.Kind != tokenbroker.KindSecret
	}
	s := slices.DeleteFunc(slices.Clone(c.Secrets), beside)
	if len(s) == 0 {
		return []tokenbroker.ClientSecret{{}}
	}
	slices.Reverse(s)
	slices.SortStableFunc(s, func(x, y tokenbroker.ClientSecret) int { return cmp.Compare(rank(x), rank(y)) })
	return s
}

// refusedSecret reports whether a request was refused for the secret or key that it was made with, so that another one may work.
func refusedSecret(err error) bool {
	f, ok := errors.AsType[*tokenbroker.Failure](err)
	if !ok {
		return false
	}
	switch f.Cause {
	case "key_unknown", "key_disabled", "client_secret_expired":
		return true
	}
	return f.Code == "invalid_client" || f.Code == "disabled_client"
}

// attempt is one send: audit the intent, make it durable, send, make the result durable, only then show it.
func (b *Broker) attempt(ctx context.Context, t try, secret tokenbroker.ClientSecret, at *turn) (*Snapshot, error) {
	grant, err := b.begin(ctx, &t)
	if err != nil {
		at.unused()
		return nil, err
	}
	t.sent = grant.RefreshToken
	cctx, cancel := context.WithTimeout(ctx, b.cfg.ExchangeTimeout)
	defer cancel()
	sent := time.Now()
	reply, err := b.cfg.Upstream.Exchange(cctx, tokenbroker.ExchangeRequest{Credential: t.cred, Client: t.client, Secret: secret,
		Variant: t.v.v, RefreshToken: grant.RefreshToken, Holds: grant.Holds, RefreshEnd: grant.RefreshEnd})
	if reply.Sent.IsZero() {
		reply.Sent = sent
	}
	b.noteSkew(t.cred.Provider, reply.Skew, err)
	if at.result(err) {
		b.spread(at.gate)
	}
	same := t.v.holds(reply.Token)
	s, err := b.conclude(ctx, t, secret, reply, err)
	b.conclusion(ctx, t, reply.Token, same, err)
	return s, err
}

// conclusion records how an attempt ended. Its token, if it brought one, is shown to nobody without a record of its own; but it is named
// here already, as one that nobody was given may be found where it should not be, too.
func (b *Broker) conclusion(ctx context.Context, t try, got *tokenbroker.Token, same bool, err error) {
	ev := t.event(EventExchange)
	ev.TokenMAC, ev.Granted, ev.Same = "", nil, same // not of the token before
	if got != nil {
		ev.TokenMAC, ev.Expiry, ev.Granted = b.mac(got.AccessToken), got.Expiry, got.Scopes
	}
	ev.Took = time.Since(t.began)
	ev.Waiters = int(t.v.waiters.Load())
	if f, ok := errors.AsType[*tokenbroker.Failure](err); ok {
		ev.Class, ev.Code, ev.HTTPStatus = f.Class, f.Code, f.HTTPStatus
	} else if err != nil {
		ev.Class, ev.Code = tokenbroker.ClassTransient, codeOf(err)
	}
	if err != nil {
		ev.Next = t.v.nextTry(time.Now())
	}
	_ = b.audit(ctx, ev) // what it speaks of has happened; the next record that fails stops what can be stopped
}

// event describes the attempt.
func (t try) event(k Kind) Event {
	t.v.e.mu.Lock()
	defer t.v.e.mu.Unlock()
	ev := t.v.event(k)
	ev.Attempt, ev.Code = t.attempt, ""
	return ev
}

// begin makes sure before anything is sent that its result can be kept and that it is on record, and returns the grant with the refresh
// token. Of what a full store keeps from being sent nothing is on record, however often it is tried.
func (b *Broker) begin(ctx context.Context, t *try) (tokenbroker.Grant, error) {
	if err := b.provenWritable(ctx); err != nil {
		return tokenbroker.Grant{}, asLocal(err)
	}
	if err := b.audit(ctx, t.event(EventIntent)); err != nil {
		return tokenbroker.Grant{}, asLocal(err)
	}
	switch {
	case t.rotating:
		g, err := b.intend(ctx, t)
		return g, asLocal(err)
	case t.subject != nil:
		return tokenbroker.Grant{RefreshToken: t.subject.AccessToken, Holds: tokenbroker.HoldsSubjectToken, RefreshEnd: t.subject.Expiry}, nil
	case t.cred.Grant.Keeps() == tokenbroker.HoldsNothing:
		return tokenbroker.Grant{Holds: tokenbroker.HoldsNothing}, nil
	}
	return b.heldGrant(ctx, t)
}

// heldGrant reads what a grant lives on that no exchange uses up. It may have been replaced or revoked since the credential was looked
// at, and what has come in its place may well be used up.
func (b *Broker) heldGrant(ctx context.Context, t *try) (tokenbroker.Grant, error) {
	_, g, err := b.cfg.Store.Load(ctx, t.cred.Name)
	if err != nil {
		return g, err
	}
	if g.UID != t.cred.UID {
		return g, tokenbroker.ErrNotFound
	}
	e := t.v.e
	e.mu.Lock()
	defer e.mu.Unlock()
	e.keep(g)
	if e.rotating() || !g.Lives() {
		return g, tokenbroker.ErrSuperseded
	}
	t.serial = g.Serial
	return g, nil
}

// intend writes the intent to spend a refresh token. The credential learns of it only if the answer is lost: while it is under
// way, other variants just wait for the spend lock.
func (b *Broker) intend(ctx context.Context, t *try) (tokenbroker.Grant, error) {
	e := t.v.e
	e.mu.Lock()
	replay := t.replay || e.unspent
	e.mu.Unlock()
	g, err := b.cfg.Store.Begin(ctx, tokenbroker.Begin{Credential: e.name, UID: t.cred.UID, Serial: t.serial,
		Attempt: t.attempt, Variant: t.v.v, Time: time.Now(), Replay: replay})
	if err != nil {
		if errors.Is(err, tokenbroker.ErrSuperseded) || errors.Is(err, tokenbroker.ErrUncertain) {
			b.reread(ctx, e)
		}
		return g, err
	}
	b.wrote()
	e.mu.Lock()
	t.intent, e.unspent = g.Intent, false
	e.mu.Unlock()
	return g, nil
}

// reread takes the grant as the store has it, after somebody else changed it.
func (b *Broker) reread(ctx context.Context, e *entry) {
	_, g, err := b.cfg.Store.Load(ctx, e.name)
	if err != nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if g.UID == e.cred.UID {
		e.keep(g)
	}
}

// conclude makes the result of a send durable and, if it is a token, visible. A refresh token is committed before anything
// else about the reply is judged.
func (b *Broker) conclude(ctx context.Context, t try, secret tokenbroker.ClientSecret, r tokenbroker.ExchangeReply, failure error) (*Snapshot, error) {
	if failure == nil && r.Token == nil {
		failure = &tokenbroker.Failure{Class: tokenbroker.ClassAmbiguous, Code: "no_access_token", Sent: true}
	}
	if r.RefreshToken.IsZero() && failure != nil {
		if !t.last && refusedSecret(failure) {
			return nil, b.release(ctx, t, failure)
		}
		return nil, b.settle(ctx, t, failure)
	}
	o := t.outcome(secret, r)
	if failure != nil {
		o.Token = nil
	}
	grant, tok, err := b.commit(ctx, t, o)
	if err != nil {
		return nil, err
	}
	if failure != nil {
		t.v.e.mu.Lock()
		t.v.e.keep(grant)
		t.v.e.mu.Unlock()
		// The failure does not speak of the new refresh token, which is safe: nothing of it is lost.
		t.serial, t.rotating, t.replay = grant.Serial, false, false
		return nil, b.settle(ctx, t, failure)
	}
	s := b.adoptToken(t, grant, tok, o.SameToken, r.Sent)
	b.scheduleExercise(t.v.e)
	b.publishAll(t.v.e)
	if !s.usable(time.Now()) {
		return nil, b.useless(t.v)
	}
	return s, nil
}

// useless is the answer for a token that can't be served although it was committed: the credential was disabled meanwhile, or
// the token's life was over before it was durable.
func (b *Broker) useless(v *variant) error {
	now := time.Now()
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	if err := v.blocked(want{}, now); err != nil {
		return err
	}
	f := &tokenbroker.Failure{Class: tokenbroker.ClassTransient, Code: "expired_on_arrival", Sent: true}
	v.strike(f, f.Code, "", 0, now)
	return &failedExchange{problem: problem(tokenbroker.ErrUpstream, f.Code, v.next.Sub(now)), failure: f}
}

func (t try) outcome(secret tokenbroker.ClientSecret, r tokenbroker.ExchangeReply) tokenbroker.Outcome {
	o := tokenbroker.Outcome{Credential: t.cred.Name, UID: t.cred.UID, Serial: t.serial, Time: time.Now(), Variant: t.v.v,
		Token: r.Token, RefreshToken: r.RefreshToken, RefreshEnd: r.RefreshEnd, SecretID: secret.ID, Account: r.Account}
	if t.v.isOwn && t.cred.Grant.Refreshes() {
		o.Granted = r.Granted // other variants ask for less
	}
	if t.rotating {
		o.Attempt = t.attempt
	}
	if used := t.v.e.lastUse.Load(); used != 0 {
		o.LastUse = time.Unix(0, used)
	}
	t.v.e.mu.Lock()
	defer t.v.e.mu.Unlock()
	o.SameToken = t.v.holdsLocked(r.Token) && t.v.token.Generation >= t.v.e.cred.Generation
	return o
}

// adoptToken puts a committed token in a variant's place.
func (b *Broker) adoptToken(t try, g tokenbroker.Grant, tok tokenbroker.Token, same bool, sent time.Time) *Snapshot {
	now, v, e := time.Now(), t.v, t.v.e
	e.mu.Lock()
	defer e.mu.Unlock()
	e.keep(g)
	if tok.Generation < v.generation || g.Serial < e.grant.Serial { // adopted or revoked while this one came
		b.review(v, now)
		return v.snap.Load()
	}
	e.probes, e.probeAt = 0, time.Time{}
	old := v.snap.Load()
	unchanged := same && v.token != nil && v.token.Expiry.Equal(tok.Expiry)
	if v.token != nil && (!now.Before(v.refreshAt) || helped(e.traits, v.token.Life(), v.reported, now.Sub(v.fetched))) {
		v.reported = 0
	}
	if t.want.report {
		v.reported++
	}
	e.cheer(v, !tok.Expiry.Add(-guard(tok.Life())).After(now))
	if !unchanged {
		v.handed.forget(v.generation)
		v.token = hold(tok, sent)
	}
	v.generation, v.fetched = tok.Generation, now
	v.refreshAt = refreshAt(tok, e.traits, draw())
	if same && !v.refreshAt.After(now) || unchanged {
		v.refreshAt = unchangedAt(now, v.token.end(now), e.traits, tok.Life())
	}
	if unchanged && old.State == tokenbroker.StateReady {
		return old // same token, same expiry: nothing to tell anybody
	}
	return b.view(v, now)
}

// cheer forgets the failures of a variant whose exchange went well, and those of the others that came of an outage. A token
// that is useless on arrival is no reason to try again sooner. e.mu is held.
func (e *entry) cheer(v *variant, useless bool) {
	if useless {
		return
	}
	v.lost, v.refusedTill, v.refusals = 0, time.Time{}, 0
	for _, o := range e.variants {
		if o == v || outage(o.lastErr) {
			o.failures, o.code, o.cause, o.lastErr, o.next = 0, "", "", nil, time.Time{}
		}
	}
}
