package store

import (
	"time"

	"github.com/tokenbroker/tokenbroker"
)

type consentRecord struct {
	version
	Credential      string                   `json:"credential"`
	UID             string                   `json:"uid"`
	Provider        string                   `json:"provider"`
	Client          string                   `json:"client"`
	Flow            tokenbroker.ConsentFlow  `json:"flow"`
	State           tokenbroker.ConsentState `json:"state"`
	Code            string                   `json:"code,omitzero"`
	BegunBy         string                   `json:"begun_by"`
	Scopes          []string                 `json:"scopes,omitzero"`
	RedirectURI     string                   `json:"redirect_uri,omitzero"`
	ExpectedAccount string                   `json:"expected_account,omitzero"`
	ReplaceAccount  bool                     `json:"replace_account,omitzero"`
	Account         string                   `json:"account,omitzero"`
	Granted         []string                 `json:"granted,omitzero"`
	Missing         []string                 `json:"missing,omitzero"`
	Trial           string                   `json:"trial,omitzero"`
	Created         time.Time                `json:"created"`
	Expiry          time.Time                `json:"expiry"`
	Ended           time.Time                `json:"ended,omitzero"`
	Version         uint64                   `json:"version"`

	Step        tokenbroker.ConsentStep `json:"step,omitzero"`
	StepTime    time.Time               `json:"step_time,omitzero"`
	State256    []byte                  `json:"state_sha256,omitzero"`
	StateExpiry time.Time               `json:"state_expiry,omitzero"`
	Link256     []byte                  `json:"link_sha256,omitzero"`
	Browser256  []byte                  `json:"browser_sha256,omitzero"`
	Verifier    []byte                  `json:"verifier,omitzero"`
	Nonce       string                  `json:"nonce,omitzero"`
	DeviceCode  []byte                  `json:"device_code,omitzero"`
	Interval    time.Duration           `json:"interval,omitzero"`
	Grant       *adoptionRecord         `json:"grant,omitzero"`
}

type adoptionRecord struct {
	RefreshToken []byte              `json:"refresh_token,omitzero"`
	Holds        tokenbroker.Holding `json:"holds,omitzero"`
	RefreshEnd   time.Time           `json:"refresh_end,omitzero"`
	Token        *tokenRecord        `json:"token,omitzero"`
	Account      string              `json:"account,omitzero"`
	Granted      []string            `json:"granted,omitzero"`
	SecretID     string              `json:"secret_id,omitzero"`
}

func consentToRecord(c tokenbroker.Consent) *consentRecord {
	return &consentRecord{
		version: current(), Credential: c.Credential, UID: c.UID, Provider: c.Provider, Client: c.Client, Flow: c.Flow, State: c.State, Code: c.Code, BegunBy: c.BegunBy,
		Scopes: c.Scopes, RedirectURI: c.RedirectURI, ExpectedAccount: c.ExpectedAccount, ReplaceAccount: c.ReplaceAccount,
		Account: c.Account, Granted: c.Granted, Missing: c.Missing, Trial: c.Trial,
		Created: c.Created.UTC(), Expiry: c.Expiry.UTC(), Ended: c.Ended.UTC(), Version: c.Version,
		Step: c.Step, StepTime: c.StepTime.UTC(), State256: c.State256, StateExpiry: c.StateExpiry.UTC(), Link256: c.Link256,
		Browser256: c.Browser256, Verifier: reveal(c.Verifier), Nonce: c.Nonce, DeviceCode: reveal(c.DeviceCode), Interval: c.Interval,
		Grant: adoptionToRecord(c.Grant),
	}
}

func (r *consentRecord) consent(id string) tokenbroker.Consent {
	return tokenbroker.Consent{
		ID: id, Credential: r.Credential, UID: r.UID, Provider: r.Provider, Client: r.Client, Flow: r.Flow, State: r.State, Code: r.Code, BegunBy: r.BegunBy,
		Scopes: r.Scopes, RedirectURI: r.RedirectURI, ExpectedAccount: r.ExpectedAccount, ReplaceAccount: r.ReplaceAccount,
		Account: r.Account, Granted: r.Granted, Missing: r.Missing, Trial: r.Trial,
		Created: r.Created, Expiry: r.Expiry, Ended: r.Ended, Version: r.Version,
		Step: r.Step, StepTime: r.StepTime, State256: r.State256, StateExpiry: r.StateExpiry, Link256: r.Link256,
		Browser256: r.Browser256, Verifier: secret(r.Verifier), Nonce: r.Nonce, DeviceCode: secret(r.DeviceCode), Interval: r.Interval,
		Grant: r.Grant.adoption(),
	}
}

func adoptionToRecord(a *tokenbroker.Adoption) *adoptionRecord {
	if a == nil {
		return nil
	}
	r := &adoptionRecord{RefreshToken: reveal(a.RefreshToken), Holds: a.Holds, RefreshEnd: a.RefreshEnd.UTC(), Account: a.Account,
		Granted: a.Granted, SecretID: a.SecretID}
	if a.Token != nil {
		r.Token = tokenToRecord(*a.Token)
	}
	return r
}

func (r *adoptionRecord) adoption() *tokenbroker.Adoption {
	if r == nil {
		return nil
	}
	a := &tokenbroker.Adoption{RefreshToken: secret(r.RefreshToken), Holds: r.Holds, RefreshEnd: r.RefreshEnd, Account: r.Account,
		Granted: r.Granted, SecretID: r.SecretID}
	if r.Token != nil {
		t := r.Token.token()
		a.Token = &t
	}
	return a
}
