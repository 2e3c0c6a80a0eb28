package daemon

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

// engineLog tells in the log what an operator has to know of the engine: what broke, and when it works again. What goes well is
// told by metrics and the audit log.
type engineLog struct {
	log *slog.Logger

	mu      sync.Mutex
	trouble map[string]tokenbroker.State // credential → the bad state that its own variant was said to be in
	skewed  map[string]bool              // provider → its clock was said to differ from ours
}

func newEngineLog(log *slog.Logger) *engineLog {
	return &engineLog{log: log, trouble: map[string]tokenbroker.State{}, skewed: map[string]bool{}}
}

// observe sees every event of the engine.
func (l *engineLog) observe(ev broker.Event) {
	switch ev.Kind {
	case broker.EventState:
		l.state(ev)
	case broker.EventCommitErr:
		l.say(slog.LevelError, "a new refresh token can't be stored: it is in memory only, mend the disk and do not restart", ev)
	case broker.EventOrphan:
		l.say(slog.LevelWarn, "a result came too late and is kept apart", ev)
	case broker.EventTampered:
		l.say(slog.LevelError, "a stored record does not open", ev)
	case broker.EventExpiring:
		l.say(slog.LevelWarn, expiringText(ev), ev, "dies", ev.Expiry.UTC().Format(time.RFC3339))
	case broker.EventSecret:
		l.log.Warn("a secret of an OAuth client is to be replaced soon: add the next one, then retire this one", "oauth_client", ev.Client, "kind", ev.Code,
			"secret_id", ev.SecretID, "fingerprint", ev.Fingerprint, "due", ev.Expiry.UTC().Format(time.RFC3339))
	case broker.EventRevoked:
		l.revoked(ev)
	case broker.EventClockSkew:
		l.skew(ev)
	case broker.EventForgotten:
		l.forget(ev.Credential)
	case broker.EventIntent, broker.EventExchange, broker.EventDeliver, broker.EventReport, broker.EventAdopted:
	}
}

// expiringText says what ends: a refresh token, or what else a grant lives on.
func expiringText(ev broker.Event) string {
	switch ev.Holds {
	case tokenbroker.HoldsToken:
		return "the static token ends soon: import the next one in time"
	case tokenbroker.HoldsPassword, tokenbroker.HoldsSubjectToken:
		return "what the credential lives on ends soon: import the next one in time"
	case tokenbroker.HoldsNothing:
		return "the access token ends soon and there is no refresh token: consent again in time"
	case tokenbroker.HoldsRefreshToken:
	}
	return "the refresh token dies soon and its use does not help: consent again or import a new one in time"
}

func (l *engineLog) revoked(ev broker.Event) {
	level := slog.LevelInfo
	if ev.Revocation != broker.RevokeDone {
		level = slog.LevelWarn
	}
	l.say(level, "the provider was asked to end a grant", ev, "outcome", string(ev.Revocation))
}

// skew tells of a clock that goes wrong, once until it is right again.
func (l *engineLog) skew(ev broker.Event) {
	l.mu.Lock()
	was := l.skewed[ev.Provider]
	is := ev.Skew.Abs() >= worthTelling
	l.skewed[ev.Provider] = is
	l.mu.Unlock()
	if is && !was {
		l.log.Warn("the broker's clock and the provider's differ: signed assertions may be refused", "provider", ev.Provider, "ahead", ev.Skew.Round(time.Second))
	}
}

// worthTelling is a difference of clocks that providers begin to mind.
const worthTelling = 5 * time.Second

// levels are the states that are worth a line.
var levels = map[tokenbroker.State]slog.Level{
	tokenbroker.StateReauthorize:   slog.LevelError,
	tokenbroker.StateQuarantined:   slog.LevelError,
	tokenbroker.StateMisconfigured: slog.LevelWarn,
	tokenbroker.StateUncertain:     slog.LevelWarn,
	tokenbroker.StateDegraded:      slog.LevelWarn,
}

// state tells of the credential's own variant. Others come of what callers ask, who are told themselves.
func (l *engineLog) state(ev broker.Event) {
	level, bad := levels[ev.State]
	if ev.State == tokenbroker.StatePending {
		level, bad = slog.LevelWarn, ev.Code != "" // it never had a token, and now it was tried
	}
	l.mu.Lock()
	was, known := l.trouble[ev.Credential]
	switch {
	case !ev.Own, ev.State == tokenbroker.StatePending && !bad:
		l.mu.Unlock()
		return
	case bad:
		l.trouble[ev.Credential] = ev.State
	default:
		delete(l.trouble, ev.Credential)
	}
	l.mu.Unlock()
	switch {
	case bad && was != ev.State:
		l.say(level, "credential is "+string(ev.State), ev, "recovery", string(ev.State.Recovery()))
	case known && ev.State == tokenbroker.StateReady:
		l.say(slog.LevelInfo, "credential is READY again", ev)
	}
}

func (l *engineLog) forget(credential string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.trouble, credential)
}

func (l *engineLog) say(level slog.Level, text string, ev broker.Event, more ...any) {
	args := []any{"credential", ev.Credential, "provider", ev.Provider, "code", ev.Code}
	if ev.Attempt != "" {
		args = append(args, "attempt", ev.Attempt)
	}
	l.log.Log(context.Background(), level, text, append(args, more...)...) //nolint:sloglint // the callers' texts are constants
}

// watchAudit says when the audit log can't be written, and when it can again.
func (d *Daemon) watchAudit(ctx context.Context) {
	tick := time.NewTicker(max(time.Second, d.cfg.WatchEvery))
	defer tick.Stop()
	ill := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := d.audit.Healthy()
		switch {
		case err != nil && !ill:
			d.log.Error("the audit log can't be written: nothing is handed out", "error", err)
		case err == nil && ill:
			d.log.Info("the audit log can be written again")
		}
		ill = err != nil
	}
}
