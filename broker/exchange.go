package broker

import (
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
	cred     tokenbroker.Credential
	client   tokenbroker.OAuthClient
	serial   uint64
	rotating bool
	attempt  string
	began    time.Time
}

// exchange sends a token request, a second one only if the first client secret was refused as such.
func (b *Broker) exchange(ctx context.Context, v *variant, g *gate) (*Snapshot, error) {
	t := b.newTry(v)
	client, err := b.cfg.Store.Client(ctx, t.cred.Client)
	if err != nil {
		g.unused()
		return nil, err
	}
	t.client = client
	for i, secret := range v.e.secretsToTry(client) {
		if i > 0 {
			t.attempt = rand.Text()
		}
		var s *Snapshot
		if s, err = b.attempt(ctx, t, secret, g); err == nil || !refusedSecret(err) {
			return s, err
		}
	}
	return nil, err
}

func (b *Broker) newTry(v *variant) try {
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	return try{v: v, cred: v.e.cred, serial: v.e.grant.Serial, rotating: v.e.rotating(), attempt: rand.Text(), began: time.Now()}
}

// secretsToTry orders a client's secrets: the one that worked last, then the newest first. A public client has one empty one.
func (e *entry) secretsToTry(c tokenbroker.OAuthClient) []tokenbroker.ClientSecret {
	if c.Auth == tokenbroker.AuthNone || len(c.Secrets) == 0 {
		return []tokenbroker.ClientSecret{{}}
	}
	e.mu.Lock()
	last := e.grant.SecretID
	e.mu.Unlock()
	s := slices.Clone(c.Secrets)
	slices.Reverse(s)
	slices.SortStableFunc(s, func(x, y tokenbroker.ClientSecret) int {
		switch last {
		case x.ID:
			return -1
		case y.ID:
			return 1
		}
		return 0
	})
	return s
}

func refusedSecret(err error) bool {
	var f *tokenbroker.Failure
	return errors.As(err, &f) && f.Code == "invalid_client"
}

// attempt is one send: audit the intent, make it durable, send, make the result durable, only then show it.
func (b *Broker) attempt(ctx context.Context, t try, secret tokenbroker.ClientSecret, g *gate) (*Snapshot, error) {
	if err := b.audit(ctx, t.event(EventIntent)); err != nil {
		g.unused()
		return nil, err
	}
	grant, err := b.begin(ctx, &t)
	if err != nil {
		g.unused()
		return nil, err
	}
	cctx, cancel := context.WithTimeout(ctx, b.cfg.ExchangeTimeout)
	defer cancel()
	sent := time.Now()
	reply, err := b.cfg.Upstream.Exchange(cctx, tokenbroker.ExchangeRequest{
		Credential: t.cred, Client: t.client, Secret: secret, Variant: t.v.v, RefreshToken: grant.RefreshToken})
	if reply.Sent.IsZero() {
		reply.Sent = sent
	}
	g.result(err)
	s, err := b.conclude(ctx, t, secret, reply, err)
	b.conclusion(ctx, t, err)
	return s, err
}

// conclusion records how an attempt ended. Its token, if it brought one, is shown to nobody without a record of its own.
func (b *Broker) conclusion(ctx context.Context, t try, err error) {
	ev := t.event(EventExchange)
	ev.Took = time.Since(t.began)
	ev.Waiters = int(t.v.waiters.Load())
	var f *tokenbroker.Failure
	if errors.As(err, &f) {
		ev.Class, ev.Code, ev.HTTPStatus = f.Class, f.Code, f.HTTPStatus
	} else if err != nil {
		ev.Class, ev.Code = tokenbroker.ClassTransient, codeOf(err)
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

// begin makes sure before anything is sent that the result can be kept, and returns the grant with the refresh token.
func (b *Broker) begin(ctx context.Context, t *try) (tokenbroker.Grant, error) {
	switch {
	case t.cred.Grant != tokenbroker.GrantRefreshToken:
		return tokenbroker.Grant{}, b.provenWritable(ctx)
	case !t.rotating:
		if err := b.provenWritable(ctx); err != nil {
			return tokenbroker.Grant{}, err
		}
		_, g, err := b.cfg.Store.Load(ctx, t.cred.Name)
		if err == nil && g.UID != t.cred.UID {
			err = tokenbroker.ErrNotFound
		}
		t.serial = g.Serial
		return g, err
	}
	return b.intend(ctx, t)
}

// intend writes the intent to spend a refresh token.
func (b *Broker) intend(ctx context.Context, t *try) (tokenbroker.Grant, error) {
	e := t.v.e
	e.mu.Lock()
	replay := e.grant.Intent != nil
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
	intent := *g.Intent
	e.grant.Intent = &intent
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
	if r.RefreshToken.IsZero() && failure != nil {
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
		t.serial = grant.Serial // the failure does not speak of the new refresh token
		return nil, b.settle(ctx, t, failure)
	}
	s := b.adoptToken(t.v, grant, tok, o.SameToken, r.Sent)
	b.scheduleExercise(t.v.e)
	b.publish(t.v)
	return s, nil
}

func (t try) outcome(secret tokenbroker.ClientSecret, r tokenbroker.ExchangeReply) tokenbroker.Outcome {
	o := tokenbroker.Outcome{Credential: t.cred.Name, UID: t.cred.UID, Serial: t.serial, Time: time.Now(), Variant: t.v.v,
		Token: r.Token, RefreshToken: r.RefreshToken, RefreshEnd: r.RefreshEnd, SecretID: secret.ID}
	if t.rotating {
		o.Attempt = t.attempt
	}
	if used := t.v.e.lastUse.Load(); used != 0 {
		o.LastUse = time.Unix(0, used)
	}
	t.v.e.mu.Lock()
	defer t.v.e.mu.Unlock()
	o.SameToken = r.Token != nil && t.v.token != nil && t.v.token.Generation >= t.v.e.cred.Generation &&
		t.v.token.AccessToken == r.Token.AccessToken
	return o
}

// commit makes an outcome durable. If it holds a new refresh token, which is the only copy there is, commit does not give up
// before the broker ends: the spend lock stays taken, and nobody sees the token that came with it.
func (b *Broker) commit(ctx context.Context, t try, o tokenbroker.Outcome) (tokenbroker.Grant, tokenbroker.Token, error) {
	for n := 0; ; n++ {
		grant, tok, err := b.cfg.Store.Commit(ctx, o)
		if err == nil {
			b.wrote()
			return grant, tok, nil
		}
		if errors.Is(err, tokenbroker.ErrSuperseded) {
			b.observe(t.event(EventOrphan))
			b.reread(ctx, t.v.e)
			return grant, tok, err
		}
		if o.RefreshToken.IsZero() || !errors.Is(err, tokenbroker.ErrStoreUnavailable) {
			return grant, tok, err
		}
		b.observe(t.event(EventCommitErr))
		if pause(ctx, min(50*time.Millisecond<<min(n, 6), 2*time.Second)) != nil {
			return grant, tok, err
		}
	}
}

// pause sleeps, unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// adoptToken puts a committed token in a variant's place.
func (b *Broker) adoptToken(v *variant, g tokenbroker.Grant, tok tokenbroker.Token, same bool, sent time.Time) *Snapshot {
	now := time.Now()
	e := v.e
	e.mu.Lock()
	defer e.mu.Unlock()
	e.keep(g)
	e.probes, e.probeAt = 0, time.Time{}
	old := v.snap.Load()
	unchanged := same && v.token != nil && v.token.Expiry.Equal(tok.Expiry)
	if v.token != nil && !now.Before(v.refreshAt) {
		v.reported = 0 // the last token lived out its life
	}
	v.failures, v.code, v.lastErr, v.next, v.refusedTill = 0, "", nil, time.Time{}, time.Time{}
	if !unchanged {
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
