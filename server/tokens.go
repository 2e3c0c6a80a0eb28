package server

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// tokenService implements the RPCs of workers.
type tokenService struct {
	tokenbrokerv1.UnimplementedTokenServiceServer
	s *Server
}

// variantRequest is a request that names a variant.
type variantRequest interface {
	GetCredential() string
	GetScopes() []string
	GetSubject() string
	GetAudience() string
}

func selectionOf(r variantRequest) broker.Selection {
	return broker.Selection{Credential: r.GetCredential(), Scopes: r.GetScopes(), Subject: r.GetSubject(), Audience: r.GetAudience()}
}

// GetToken implements tokenbrokerv1.TokenServiceServer.
func (t *tokenService) GetToken(ctx context.Context, r *tokenbrokerv1.GetTokenRequest) (*tokenbrokerv1.GetTokenResponse, error) {
	c := callOf(ctx)
	least, err := minValidityOf(r)
	if err != nil {
		return nil, err
	}
	req := broker.Request{Selection: selectionOf(r), Holder: c.Identity, MinValidity: least}
	if t.s.shedder.level() >= shedMisses {
		req.Refuse = errMemory(retrySoon)
	}
	snap, err := t.s.cfg.Broker.Token(ctx, req)
	if err != nil {
		return nil, err
	}
	c.shared, c.given = encodedOf(snap), snap
	return c.shared.get, nil
}

func minValidityOf(r *tokenbrokerv1.GetTokenRequest) (time.Duration, error) {
	d := r.GetMinValidity()
	if d == nil {
		return 0, nil
	}
	least := d.AsDuration()
	if d.CheckValid() != nil || least < 0 || least > broker.MaxMinValidity {
		return 0, tokenbroker.Invalid("minValidity", errors.New("must be from 0s to 86400s"))
	}
	return least, nil
}

// ReportRejected implements tokenbrokerv1.TokenServiceServer.
func (t *tokenService) ReportRejected(ctx context.Context, r *tokenbrokerv1.ReportRejectedRequest) (*tokenbrokerv1.ReportRejectedResponse, error) {
	c := callOf(ctx)
	report := broker.Report{Selection: selectionOf(r), Generation: tokenbroker.Generation(r.GetGeneration()),
		HTTPStatus: int(r.GetHttpStatus()), Code: r.GetErrorCode(), Holder: c.Identity}
	if err := report.Check(); err != nil {
		return nil, err
	}
	snap, outcome, wait, err := t.s.cfg.Broker.ReportRejected(ctx, report)
	if err != nil {
		return nil, err
	}
	c.given = snap
	shared := encodedOf(snap).get
	resp := &tokenbrokerv1.ReportRejectedResponse{Token: shared.GetToken(), State: shared.GetState(),
		RecoveryAction: shared.GetRecoveryAction(), Outcome: outcomes[outcome]}
	if wait > 0 {
		resp.RetryDelay = durationpb.New(wait)
	}
	return resp, nil
}

var outcomes = map[broker.ReportOutcome]tokenbrokerv1.ReportOutcome{
	broker.ReportNewer:   tokenbrokerv1.ReportOutcome_REPORT_OUTCOME_NEWER,
	broker.ReportWait:    tokenbrokerv1.ReportOutcome_REPORT_OUTCOME_WAIT,
	broker.ReportCounted: tokenbrokerv1.ReportOutcome_REPORT_OUTCOME_COUNTED,
}
