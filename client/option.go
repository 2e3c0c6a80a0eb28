package client

import "time"

// Option asks for something else than the credential's own scopes, subject and audience.
type Option func(*ask)

// ask is what a caller wants.
type ask struct {
	scopes            []string
	subject, audience string
	minValidity       time.Duration
	errorCode         string
}

func asked(opts []Option) (a ask) {
	for _, o := range opts {
		o(&a)
	}
	return a
}

// Scopes asks for scopes.
func Scopes(scopes ...string) Option { return func(a *ask) { a.scopes = scopes } }

// Subject says whom the token is to act for.
func Subject(s string) Option { return func(a *ask) { a.subject = s } }

// Audience says whom the token is for.
func Audience(s string) Option { return func(a *ask) { a.audience = s } }

// MinValidity asks for a token that is valid for at least d yet; up to 24 h. See GetTokenRequest.min_validity for what it may cost.
func MinValidity(d time.Duration) Option { return func(a *ask) { a.minValidity = d } }

// Wanted are the options that ask for all of this. What is empty or 0 asks for nothing, and all of that together is no option at all, which is
// what Token answers fastest.
func Wanted(scopes []string, subject, audience string, minValidity time.Duration) []Option {
	var opts []Option
	if len(scopes) > 0 {
		opts = append(opts, Scopes(scopes...))
	}
	if subject != "" {
		opts = append(opts, Subject(subject))
	}
	if audience != "" {
		opts = append(opts, Audience(audience))
	}
	if minValidity > 0 {
		opts = append(opts, MinValidity(minValidity))
	}
	return opts
}

// ErrorCode tells ReportRejected the error code of the WWW-Authenticate header that came with the refusal (RFC 6750 §3.1), e.g.
// "invalid_token". Other methods pass over it.
func ErrorCode(code string) Option { return func(a *ask) { a.errorCode = code } }
