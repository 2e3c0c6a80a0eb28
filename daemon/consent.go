package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/consent"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/store"
)

// newConsent puts the consents over the store, the engine and the providers.
func (d *Daemon) newConsent(records *store.Store, catalogue *provider.Catalogue) (*consent.Service, error) {
	return consent.New(consent.Config{
		Records: records, Configuration: records, Engine: consentEngine{d.broker}, Codes: d.grants, Devices: d.grants,
		Profiles: catalogue.Profile, PublicURL: d.cfg.Consent.PublicURL, Audit: d.recordConsent, Log: d.log,
	})
}

// consentEngine is the engine as consents need it.
type consentEngine struct{ b *broker.Broker }

// Adopt implements consent.Engine.
func (e consentEngine) Adopt(ctx context.Context, a tokenbroker.Adoption) error {
	_, err := e.b.Adopt(ctx, a.Credential, a)
	return err
}

// Trial implements consent.Engine.
func (e consentEngine) Trial(ctx context.Context, credential string) string {
	_, err := e.b.Refresh(ctx, credential)
	if errors.Is(err, tokenbroker.ErrBackoff) {
		return ""
	}
	st, readErr := e.b.Credential(ctx, credential)
	switch {
	case readErr != nil:
		return "UNKNOWN"
	case err != nil && st.Snapshot.Code != "":
		return st.Snapshot.Code
	}
	return string(st.Snapshot.State)
}

// recordConsent writes to the audit log what a browser or a device did.
func (d *Daemon) recordConsent(ctx context.Context, action string, c tokenbroker.Consent) error {
	return d.audit.Write(ctx, audit.Record{Time: time.Now(), Kind: audit.KindSystem, Action: action, RequestID: c.ID, Identity: c.BegunBy,
		Credential: c.Credential, OAuthClient: c.Client, Provider: c.Provider, ScopesAsked: c.Scopes, Reason: string(c.Flow)})
}
