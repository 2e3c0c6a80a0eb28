package main

import (
	"context"
	"fmt"
	"time"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// rejection is an API's refusal of a token.
type rejection struct {
	generation uint64
	status     int
	code       string // of WWW-Authenticate; "" = none
}

// reject tells the broker of a refusal. The token of the answer is newer if there is, or could at once be had, a newer one.
func (s *session) reject(ctx context.Context, req *tokenbrokerv1.GetTokenRequest, r rejection) (*tokenbrokerv1.ReportRejectedResponse, error) {
	return call(ctx, s, s.tokens.ReportRejected, &tokenbrokerv1.ReportRejectedRequest{Credential: req.GetCredential(), Scopes: req.GetScopes(),
		Subject: req.GetSubject(), Audience: req.GetAudience(), Generation: r.generation, HttpStatus: int32(min(r.status, 999)), ErrorCode: r.code})
}

// renewed reports a refusal and waits for a newer token, up to a limit. Without an error and without a token there is none yet.
func (s *session) renewed(ctx context.Context, like *variant, req *tokenbrokerv1.GetTokenRequest, r rejection, limit time.Duration) (*tokenbrokerv1.Token, error) {
	resp, newer, err := s.superseded(ctx, like, req, r, limit)
	if err != nil || !newer {
		return nil, err // that there is none is no error: the API's own answer is handed on
	}
	if t := resp.GetToken(); t.GetGeneration() > r.generation {
		return t, sound(req.GetCredential(), t)
	}
	now, err := s.handed(ctx, req)
	return now.GetToken(), err
}

// superseded reports a refusal and waits, up to a limit, until there is a newer token. It returns the broker's last answer, which need not
// have that token yet.
func (s *session) superseded(ctx context.Context, like *variant, req *tokenbrokerv1.GetTokenRequest, r rejection, limit time.Duration) (
	resp *tokenbrokerv1.ReportRejectedResponse, newer bool, err error) {
	for end := time.Now().Add(limit); ; {
		if resp, err = s.reject(ctx, req, r); err != nil {
			return nil, false, err
		}
		left := time.Until(end)
		switch {
		case resp.GetOutcome() == tokenbrokerv1.ReportOutcome_REPORT_OUTCOME_NEWER, resp.GetToken().GetGeneration() > r.generation:
			return resp, true, nil
		case left <= 0, r.status != unauthorized:
			return resp, false, nil
		}
		if again := resp.GetRetryDelay().AsDuration(); again > 0 {
			left = min(left, again)
		}
		if s.newer(ctx, like, req, r.generation, left) {
			return resp, true, nil
		}
		if time.Until(end) <= 0 {
			return resp, false, nil // a further report would count one refusal twice, and nobody would wait for what it leads to
		}
	}
}

// newer waits until there is a newer generation. Who may get tokens and not subscribe hears of none, and asks at the end of the wait: another job
// may have brought one meanwhile.
func (s *session) newer(ctx context.Context, like *variant, req *tokenbrokerv1.GetTokenRequest, than uint64, limit time.Duration) bool {
	bound, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	heard := false
	for u, err := range s.client.Subscribe(bound, req.GetCredential(), like.options()...) {
		if err != nil || u.Token == nil {
			continue
		}
		if heard = true; uint64(u.Token.Generation) > than {
			return true
		}
	}
	<-bound.Done() // the stream may have ended before its time
	if heard || ctx.Err() != nil {
		return false
	}
	now, err := call(ctx, s, s.tokens.GetToken, req)
	return err == nil && now.GetToken().GetGeneration() > than
}

// note tells something on standard error that does not end the command.
func (c *cli) note(format string, args ...any) {
	_, _ = fmt.Fprintf(c.errs, "tokenctl: %s\n", clean(fmt.Sprintf(format, args...)))
}
