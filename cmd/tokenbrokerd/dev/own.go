package dev

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/starter"
	"github.com/tokenbroker/tokenbroker/daemon"
	"github.com/tokenbroker/tokenbroker/policy"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

//go:embed templates/own.txt
var ownText string

const (
	ownClient  = "sandbox-client" // the client id that every issuer knows
	ownLife    = time.Minute      // of access tokens, so that refreshes can be seen
	secretFile = "sandbox/client-secret"
)

// own is the scene of an operator's own config and policy.
type own struct {
	front      *front
	cfg        daemon.Config
	catalogue  *provider.Catalogue
	policy     *policy.Policy
	identities []identity
}

// identity is somebody whom the policy names, with a certificate of the throwaway CA.
type identity struct {
	ID       string
	File     string // within the folder, without .pem and .key
	Operator bool   // may create credentials and OAuth clients, as far as a rule gives those actions at all
}

// newOwn checks what of a config is going to be used, as serve does.
func newOwn(cfg daemon.Config) (*own, error) {
	catalogue, provErr := provider.New(cfg.Providers)
	file, policyErr := policy.Load(cfg.PolicyFile)
	if err := errors.Join(provErr, policyErr); err != nil {
		return nil, err
	}
	o := &own{cfg: cfg, catalogue: catalogue, policy: file.Current()}
	if len(catalogue.Configured()) == 0 {
		return nil, errors.New("the config names no provider, so there is nothing to try: add one under providers")
	}
	if o.identities = o.whoThereIs(); len(o.identities) == 0 {
		return nil, errors.New("the policy names no SPIFFE identity, so there is nobody to make a certificate for")
	}
	return o, nil
}

// whoThereIs makes an identity of every SPIFFE pattern of the policy. Those with DNS names get no certificate.
func (o *own) whoThereIs() []identity {
	var all []identity
	for _, pattern := range o.policy.Identities() {
		id, spiffe := strings.CutPrefix(strings.ReplaceAll(strings.ReplaceAll(pattern, "**", "*"), "*", "example"), "spiffe://")
		if !spiffe {
			continue
		}
		file := path.Join("identities", strings.ReplaceAll(id, "/", "_"))
		if slices.ContainsFunc(all, func(i identity) bool { return i.File == file }) {
			continue
		}
		id = "spiffe://" + id
		all = append(all, identity{ID: id, File: file,
			Operator: o.policy.Grants(id, policy.CredentialCreate) && o.policy.Grants(id, policy.OAuthClientCreate)})
	}
	return all
}

func (o *own) prepare(f *folder, cfg *daemon.Config) (*sandbox.Server, map[string]role, error) {
	if err := f.clear(pkiNames()...); err != nil { // the policy may name others than it did
		return nil, nil, err
	}
	names := map[string]string{}
	for _, i := range o.identities {
		names[i.File] = i.ID
	}
	if err := f.MakePKI(names); err != nil {
		return nil, nil, fmt.Errorf("certificates for the identities of the policy: %w", err)
	}
	var issuers []sandbox.Issuer
	roles, profiles := map[string]role{}, map[string]provider.Profile{}
	for i, name := range o.catalogue.Configured() {
		p, _ := o.catalogue.Profile(name)
		r := role{fmt.Sprintf("provider-%d", i+1), []string{ownClient}, p.Traits().Floor} // a provider's name may hold what an issuer's can't
		issuers, roles[name], profiles[name] = append(issuers, issuer(r.issuer, p)), r, standIn(r.issuer, p)
	}
	sb, err := sandbox.New(sandbox.Config{Issuers: issuers, AllowHTTP: true}) // its API is on loopback
	if err != nil {
		return nil, nil, err
	}
	o.front.serve(ownAPI(sb, roles))
	cfg.KEKFile, cfg.PolicyFile, cfg.Providers, cfg.Transport = f.Path(kekFile), o.cfg.PolicyFile, profiles, inPlace(sb)
	cfg.AllowDNS, cfg.Limits, cfg.AuditSync, cfg.Exchange = o.cfg.AllowDNS, o.cfg.Limits, o.cfg.AuditSync, o.cfg.Exchange
	return sb, roles, nil
}

// issuer plays a provider: with what its profile says of rotation, grace, old tokens and idleness.
func issuer(name string, p provider.Profile) sandbox.Issuer {
	t := p.Traits()
	iss := sandbox.Issuer{Name: name, AccessLife: ownLife, RefreshLife: t.IdleLife, KillsOld: t.KillsOld, Downscope: t.Downscopes,
		Clients: []sandbox.Client{{ID: ownClient, Secrets: []string{sandboxSecret}, Auth: sandbox.AuthMethod(method(p))}}}
	if method(p) == tokenbroker.AuthNone {
		iss.Clients[0].Secrets = nil
	}
	switch {
	case !t.Rotates:
		iss.Rotation = sandbox.RotateNone
	case t.Grace > 0:
		iss.Rotation, iss.Grace = sandbox.RotateGrace, t.Grace
	}
	return iss
}

// method is how the sandbox's client authenticates at a provider: the first that the profile allows.
func method(p provider.Profile) tokenbroker.AuthMethod { return p.AuthMethods[0] }

// standIn is a profile with the behaviour of another, at an issuer of the sandbox. How the other spells requests and replies stays behind,
// since the sandbox speaks plain RFC 6749.
func standIn(issuer string, p provider.Profile) provider.Profile {
	return provider.Profile{TokenEndpoint: endpoint(issuer), AuthMethods: p.AuthMethods, AudienceParameter: p.AudienceParameter,
		DefaultLife: p.DefaultLife, Rotates: p.Rotates, Grace: p.Grace, KillsOld: p.KillsOld, IdleLife: p.IdleLife,
		AbsoluteLife: p.AbsoluteLife, Strikes: p.Strikes, Floor: p.Floor, LiveTokens: p.LiveTokens, Downscopes: p.Downscopes,
		Rate: p.Rate, Burst: p.Burst}
}

// ready is what there is to create credentials with at one provider.
type ready struct {
	Provider, Method   string
	Confidential       bool
	Client, Credential string // names that the policy lets be created
}

func (o *own) populate(_ context.Context, s *session) (string, error) {
	w := s.world
	if err := w.dir.writeSecret(secretFile, sandboxSecret); err != nil {
		return "", err
	}
	who, operator := o.speaker()
	var all []ready
	for _, name := range o.catalogue.Configured() {
		// Without scopes of its own it fits a credential with any.
		token := w.sandbox.SeedRefreshToken(w.roles[name].issuer, ownClient)
		if err := w.dir.writeSecret(path.Join("sandbox", name+".refresh-token"), token); err != nil {
			return "", err
		}
		all = append(all, o.ready(name, who.ID))
	}
	if err := w.dir.writeSecret("env", w.dir.Env(w.Addr, who.File)+o.front.env()); err != nil {
		return "", err
	}
	return fill(ownText, map[string]any{"Addr": w.Addr, "Ops": w.Ops, "API": o.front.api(), "Dir": starter.Quote(w.dir.Dir), "Policy": o.cfg.PolicyFile, "Client": ownClient,
		"Providers": all, "Identities": o.identities, "Speaker": who, "Operator": operator})
}

// ready says what an identity can create at a provider.
func (o *own) ready(name, who string) ready {
	p, _ := o.catalogue.Profile(name)
	r := ready{Provider: name, Method: string(method(p)), Confidential: method(p) != tokenbroker.AuthNone, Client: "CLIENT", Credential: "CREDENTIAL"}
	for _, try := range []string{"example/" + name, name + "/example", name} {
		if o.policy.Decide(policy.Request{Identity: who, Action: policy.OAuthClientCreate, OAuthClient: try}).Allowed {
			r.Client = try
		}
		if o.policy.Decide(policy.Request{Identity: who, Action: policy.CredentialCreate, Credential: try}).Allowed && r.Credential == "CREDENTIAL" {
			r.Credential = try
		}
	}
	return r
}

// speaker is as whom the env file speaks: the first who may create, if there is one.
func (o *own) speaker() (who identity, operator bool) {
	for _, i := range o.identities {
		if i.Operator {
			return i, true
		}
	}
	return o.identities[0], false
}

func (o *own) hints(w *world) []string {
	return []string{"join in:  . " + starter.Quote(w.dir.Path("env")), "          go run ./cmd/tokenctl credential list"}
}

// herd asks the engine itself: nobody in the policy is sure to be allowed the credential's token.
func (o *own) herd(ctx context.Context, w *world, name string, least time.Duration) error {
	b := w.engine()
	if b == nil {
		return tokenbroker.ErrDraining
	}
	return together(func() error {
		_, err := b.Token(ctx, broker.Request{Selection: broker.Selection{Credential: name}, MinValidity: least, Holder: "tokenbrokerd-dev"})
		return err
	})
}
