package conformance_test

import (
	"cmp"
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func (f fixture) auth() string { return cmp.Or(f.Client.Auth, "client_secret_basic") }

func (f fixture) grant() string { return cmp.Or(f.Grant.Type, "refresh_token") }

// create makes the OAuth client and the credential.
func (r *runner) create() error {
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	req := &tokenbrokerv1.CreateOAuthClientRequest{OauthClient: "app", ClientSecret: clientSecret, Spec: &tokenbrokerv1.OAuthClientSpec{
		Provider: "it", ClientId: clientID, AuthMethod: tokenbrokerv1.AuthMethod(
			tokenbrokerv1.AuthMethod_value["AUTH_METHOD_"+strings.ToUpper(r.f.auth())])}}
	switch {
	case r.f.Client.Key:
		req.ClientSecret, req.PrivateKey, req.Spec.ClientId = "", r.keys[0], ""
	case r.f.auth() == "none":
		req.ClientSecret = ""
	}
	if _, err := r.clients.CreateOAuthClient(ctx, req); err != nil {
		r.t.Fatalf("create the OAuth client: %v", err)
	}
	for i := range r.f.Client.Keys {
		if _, err := r.clients.AddClientSecret(ctx, &tokenbrokerv1.AddClientSecretRequest{OauthClient: "app", PrivateKey: r.keys[i+1]}); err != nil {
			r.t.Fatalf("add a key: %v", err)
		}
	}
	g := r.f.Grant
	c := &tokenbrokerv1.CreateCredentialRequest{Credential: name, Spec: &tokenbrokerv1.CredentialSpec{Provider: "it", OauthClient: "app",
		GrantType: tokenbrokerv1.GrantType(tokenbrokerv1.GrantType_value["GRANT_TYPE_"+strings.ToUpper(r.f.grant())]),
		Scopes:    g.Scopes, Subject: g.Subject, Audience: g.Audience, Parameters: g.Parameters}}
	if r.f.grant() == "refresh_token" {
		c.RefreshToken = r.firstRefresh()
	}
	_, err := r.credentials.CreateCredential(ctx, c)
	return err
}

func (r *runner) firstRefresh() string {
	if r.f.Sandbox != nil {
		r.up.first = r.b.Sandbox.SeedRefreshToken("it", clientID, r.f.Grant.Scopes...)
		r.up.refresh = r.up.first
		return r.up.first
	}
	return cmp.Or(r.f.Grant.Token, firstRefresh)
}

func (r *runner) get(ctx context.Context, s step, o outcome) outcome {
	req := &tokenbrokerv1.GetTokenRequest{Credential: name, Scopes: s.Scopes, Subject: s.Subject, Audience: s.Audience}
	if s.MinLife > 0 {
		req.MinValidity = durationOf(s.MinLife)
	}
	resp, err := r.worker.GetToken(ctx, req)
	o.token, o.err = resp.GetToken(), err
	return o
}

// herd has so many workers ask at once. All of them have to get the same.
func (r *runner) herd(ctx context.Context, s step, n int, o outcome) outcome {
	all := make([]outcome, n)
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() { all[i] = r.get(ctx, s, o) })
	}
	wg.Wait()
	for _, other := range all[1:] {
		if a, b := all[0].token.GetAccessToken(), other.token.GetAccessToken(); a != b {
			r.t.Errorf("%s: one worker got %q, another %q", r.at, a, b)
		}
	}
	return all[0]
}

func (r *runner) report(ctx context.Context, s step, status int, o outcome) outcome {
	resp, err := r.worker.ReportRejected(ctx, &tokenbrokerv1.ReportRejectedRequest{Credential: name, Scopes: s.Scopes, Subject: s.Subject,
		Audience: s.Audience, Generation: r.token.GetGeneration(), HttpStatus: int32(status)})
	o.token, o.report, o.err = resp.GetToken(), resp.GetOutcome(), err
	return o
}

// nag reports each token as refused as soon as that may help, as a worker does whose trouble is not the token; so many times.
func (r *runner) nag(ctx context.Context, s step, times int, o outcome) outcome {
	for range times {
		o = r.report(ctx, s, http.StatusUnauthorized, o)
		if o.err != nil {
			return o
		}
		if o.token != nil {
			r.token = o.token
		}
		time.Sleep(30 * time.Second)
	}
	return o
}

// subscribe opens a stream and reads it until the fixture ends.
func (r *runner) subscribe() {
	ctx, cancel := context.WithCancel(r.t.Context())
	r.stop = cancel
	stream, err := r.worker.Subscribe(ctx, &tokenbrokerv1.SubscribeRequest{Selectors: []*tokenbrokerv1.Selector{{Credential: name}}})
	if err != nil {
		r.t.Errorf("%s: %v", r.at, err)
		return
	}
	r.reader.Go(func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				return // the fixture is over
			}
			r.receive(m)
		}
	})
}

func (r *runner) receive(m *tokenbrokerv1.SubscribeResponse) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if u := m.GetUpdate(); u != nil {
		r.told = strings.TrimPrefix(u.GetState().String(), "CREDENTIAL_STATE_")
	}
	if token := m.GetUpdate().GetToken().GetAccessToken(); token != "" && token != r.pushed {
		r.pushed, r.pushedAt = token, time.Now()
	}
}

func (r *runner) warned() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.warnings
}

func (r *runner) newest() (token, state string, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pushed, r.told, r.pushedAt
}
