package daemon

import (
	"context"
	"sync"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/policy"
)

// watch takes up changed policies and certificates until ctx ends.
func (d *Daemon) watch(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = d.policy.Watch(ctx, d.cfg.WatchEvery, func(old, now *policy.Policy) { d.policyChanged(ctx, old, now) }, func(err error) { d.policyRefused(ctx, err) })
	})
	wg.Go(func() { d.watchAudit(ctx) })
	wg.Go(func() { d.watchAuditKey(ctx) })
	wg.Go(func() { d.watchMetadata(ctx) })
	wg.Go(func() { d.watchUsage(ctx) })
	d.watchIdentity(ctx, &wg)
	if d.web != nil {
		wg.Go(func() { d.watchWeb(ctx) })
	}
	wg.Wait()
}

// policyChanged judges open streams by the policy that came in force. Calls are judged by it anyway.
func (d *Daemon) policyChanged(ctx context.Context, old, now *policy.Policy) {
	d.metrics.policyLoaded()
	d.server.PolicyChanged(ctx)
	d.log.Info("policy reloaded", "revision", now.Revision(), "was", old.Revision(), "rules", now.Len())
	for _, line := range policy.Diff(old, now) {
		d.log.Info("policy changed", "revision", now.Revision(), "change", line)
	}
	_ = d.audit.Write(ctx, audit.Record{Kind: audit.KindSystem, Action: "policy.reload", PolicyRevision: now.Revision(), Reason: "was " + old.Revision()})
}

func (d *Daemon) policyRefused(ctx context.Context, err error) {
	_ = d.audit.Write(ctx, system("policy.refuse", ""))
	d.log.Error("policy refused, the last good one stays in force", "error", err)
}

// Reload looks at policy, certificates and deny list now, and opens the audit log's path anew, as after a rotation by rename: what SIGHUP
// asks for.
func (d *Daemon) Reload(ctx context.Context) {
	old := d.policy.Current()
	if changed, err := d.policy.Reload(); err != nil {
		d.policyRefused(ctx, err)
	} else if changed {
		d.policyChanged(ctx, old, d.policy.Current())
	}
	d.reloadIdentity(ctx)
	if d.web != nil {
		if changed, err := d.web.certificate.Reload(); err != nil || changed {
			d.webCertificateChanged(ctx, err)
		}
	}
	if err := d.sink.Reopen(); err != nil {
		d.log.Error("audit log not reopened, the open one stays in use", "error", err)
	}
}

// outcome is an exchange's result as a metric's label.
func outcome(class tokenbroker.Class) string {
	if class == "" {
		return "ok"
	}
	return string(class)
}
