package daemon

import (
	"context"

	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/server"
)

// system is a record of the broker itself.
func system(action, reason string) audit.Record {
	return audit.Record{Kind: audit.KindSystem, Action: action, Reason: reason}
}

// record writes the engine's audited events to the audit log.
func (d *Daemon) record(ctx context.Context, ev broker.Event) error {
	return d.audit.Write(ctx, recordOf(ev))
}

// recordOf is an event as a record.
func recordOf(ev broker.Event) audit.Record {
	r := audit.Record{
		Kind: auditKinds[ev.Kind], RequestID: ev.Attempt, Credential: ev.Credential, OAuthClient: ev.Client, Provider: ev.Provider,
		ScopesAsked: ev.Variant.Scopes, Subject: ev.Variant.Subject, Audience: ev.Variant.Audience,
		Generation: ev.Order.Generation, Serial: ev.Serial, Streams: ev.Streams, Latency: ev.Took,
		Code: ev.Code, Reason: reasonOf(ev),
	}
	switch ev.Kind {
	case broker.EventExchange, broker.EventDeliver, broker.EventAdopted:
		r.TokenMAC, r.ScopesGranted = ev.TokenMAC, ev.Granted
		if ev.TokenMAC != "" {
			r.Expiry = ev.Expiry
		}
	default: // of no token
	}
	return r
}

var auditKinds = map[broker.Kind]audit.Kind{
	broker.EventIntent:   audit.KindExchangeIntent,
	broker.EventExchange: audit.KindExchangeResult,
	broker.EventAdopted:  audit.KindExchangeResult,
	broker.EventDeliver:  audit.KindDeliver,
	broker.EventRevoked:  audit.KindRevocation,
}

func reasonOf(ev broker.Event) string {
	switch {
	case ev.Kind == broker.EventDeliver:
		return string(ev.State)
	case ev.Kind == broker.EventRevoked:
		return string(ev.Revocation)
	case ev.Kind == broker.EventAdopted:
		return "adopted"
	case ev.Kind == broker.EventExchange && ev.Class == "" && ev.Same:
		return server.ReasonUnchanged
	case ev.Kind == broker.EventExchange && ev.Class == "":
		return "ok"
	}
	return string(ev.Class)
}
