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
}

func newEngineLog(log *slog.Logger) *engineLog {
	return &engineLog{log: log, trouble: map[string]tokenbroker.State{}}
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
		l.say(slog.LevelWarn, "the refresh token dies soon and its use does not help: consent again or import a new one in time", ev,
			"dies", ev.Expiry.UTC().Format(time.RFC3339))
	case broker.EventForgotten:
		l.forget(ev.Credential)
	case broker.EventIntent, broker.EventExchange, broker.EventDeliver, broker.EventReport:
	}
}

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
