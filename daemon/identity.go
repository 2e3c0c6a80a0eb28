package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/tokenbroker/tokenbroker/mtls"
)

// Admin is the listener for operators. With it the other listener serves what workers need, and nothing else.
type Admin struct {
	Listener net.Listener // nil = listen on Listen
	Listen   string       // TCP address; "" = none
	// TLS names the CAs of operators: CA, Domains or both. They must not be those of workers. The certificate is the broker's own, so
	// Cert and Key stay empty.
	TLS      mtls.Files
	AllowDNS bool // as Config.AllowDNS, for this listener
}

func (a Admin) none() bool { return a.Listener == nil && a.Listen == "" }

// Workload says where the SPIFFE Workload API is, which gives the broker its certificate and the bundles of trust domains.
type Workload struct {
	Socket string        // e.g. unix:///run/spire/agent.sock; "" = none, and the certificate comes from files
	Wait   time.Duration // how long a start waits for it; 0 = 1 min
}

// identity is what says who the broker is, and who its peers may be.
type identity struct {
	tls   *mtls.Source
	admin *mtls.Source   // nil = there is no listener for operators
	deny  *mtls.DenyList // nil = nobody is denied
}

// open opens all of it, and reports all that is wrong at once.
func (i *identity) open(ctx context.Context, cfg Config) error {
	if cfg.Workload.Socket != "" {
		wait, cancel := context.WithTimeout(ctx, cmp.Or(cfg.Workload.Wait, time.Minute))
		defer cancel()
		ctx = wait
	}
	files := cfg.Admin.TLS
	var err, denyErr, adminErr error
	if cfg.DenyFile != "" {
		i.deny, denyErr = mtls.OpenDenyList(cfg.DenyFile)
	}
	wrong := errors.Join(settings(cfg), denyErr)
	if wrong != nil && cfg.Workload.Socket != "" {
		return wrong // nothing is waited for in vain
	}
	if i.tls, err = source(ctx, cfg, cfg.TLS, false); err != nil || wrong != nil || cfg.Admin.none() {
		return errors.Join(wrong, err)
	}
	files.Cert, files.Key = cfg.TLS.Cert, cfg.TLS.Key
	if i.admin, adminErr = source(ctx, cfg, files, true); adminErr != nil {
		return fmt.Errorf("listener for operators: %w", adminErr)
	}
	return mtls.Apart(i.tls, i.admin)
}

// source opens the certificate, and the bundles of one listener.
func source(ctx context.Context, cfg Config, files mtls.Files, apart bool) (*mtls.Source, error) {
	files.Listens = true
	if cfg.Workload.Socket == "" {
		return mtls.Open(files)
	}
	return mtls.OpenWorkload(ctx, mtls.Workload{Socket: cfg.Workload.Socket, Files: files, Apart: apart, Waiting: func(err error) {
		cfg.Log.Warn("waiting for the workload API", "socket", cfg.Workload.Socket, "error", err)
	}})
}

// settings says which settings do not go together.
func settings(cfg Config) error {
	var errs []error
	admin := cfg.Admin.TLS
	switch {
	case cfg.Admin.none() && (admin.CA != "" || len(admin.Domains) > 0):
		errs = append(errs, errors.New("admin_tls is of no use without admin_listen"))
	case !cfg.Admin.none() && admin.CA == "" && len(admin.Domains) == 0:
		errs = append(errs, errors.New("admin_listen needs the CAs of operators: set admin_tls.client_ca_file or admin_tls.trust_domains"))
	}
	if cfg.AllowDNS && cfg.TLS.CA == "" {
		errs = append(errs, errors.New("identity.allow_dns needs tls.client_ca_file, whose CAs vouch for DNS names"))
	}
	if cfg.Admin.AllowDNS && admin.CA == "" {
		errs = append(errs, errors.New("admin_tls.allow_dns needs admin_tls.client_ca_file, whose CAs vouch for DNS names"))
	}
	return errors.Join(errs...)
}

// check is open without the Workload API, which a check of the files must not wait for.
func (i *identity) check(cfg Config) error {
	if cfg.Workload.Socket == "" {
		return i.open(context.Background(), cfg)
	}
	var denyErr, adminErr error
	if cfg.DenyFile != "" {
		i.deny, denyErr = mtls.OpenDenyList(cfg.DenyFile)
	}
	if !cfg.Admin.none() {
		adminErr = mtls.Workload{Socket: cfg.Workload.Socket, Files: cfg.Admin.TLS}.Check()
	}
	return errors.Join(settings(cfg), denyErr, mtls.Workload{Socket: cfg.Workload.Socket, Files: cfg.TLS}.Check(), adminErr)
}

// warnings are of what is allowed but should be known.
func (i *identity) warnings(cfg Config) []string {
	if cfg.Workload.Socket != "" {
		return []string{"tls.workload_api: what the workload API gives is not checked"}
	}
	return i.unbounded()
}

// unbounded says whose CAs vouch for all. A start says it, too.
func (i *identity) unbounded() (warnings []string) {
	for _, listener := range []struct {
		settings string
		source   *mtls.Source
	}{{"tls", i.tls}, {"admin_tls", i.admin}} {
		if listener.source != nil && listener.source.VouchesForAll() {
			warnings = append(warnings, fmt.Sprintf("the broker's certificate has no SPIFFE ID and %[1]s.trust_domains is not set: "+
				"the CAs of %[1]s.client_ca_file vouch for every trust domain", listener.settings))
		}
	}
	return warnings
}

// openAdmin listens for operators, if the settings say so.
func (d *Daemon) openAdmin(ctx context.Context) (err error) {
	if d.cfg.Admin.none() {
		return nil
	}
	if d.adminListen = d.cfg.Admin.Listener; d.adminListen == nil {
		if d.adminListen, err = new(net.ListenConfig).Listen(ctx, "tcp", d.cfg.Admin.Listen); err != nil {
			return fmt.Errorf("listen for operators: %w", err)
		}
	}
	d.closers = append(d.closers, func() { _ = d.adminListen.Close() })
	return nil
}

// AdminAddr is where operators are served; nil if there is no listener for them.
func (d *Daemon) AdminAddr() net.Addr {
	if d.adminListen == nil {
		return nil
	}
	return d.adminListen.Addr()
}

// watchIdentity takes up certificates, bundles and deny lists until ctx ends.
func (d *Daemon) watchIdentity(ctx context.Context, wg *sync.WaitGroup) {
	wg.Go(func() {
		d.identity.tls.Watch(ctx, d.cfg.WatchEvery, func(err error) { d.certificatesChanged(ctx, d.identity.tls, "workers", err) })
	})
	if d.identity.admin != nil {
		wg.Go(func() {
			d.identity.admin.Watch(ctx, d.cfg.WatchEvery, func(err error) { d.certificatesChanged(ctx, d.identity.admin, "operators", err) })
		})
	}
	if d.identity.deny != nil {
		wg.Go(func() { d.identity.deny.Watch(ctx, d.cfg.WatchEvery, func(err error) { d.denyListChanged(ctx, err) }) })
	}
}

// reloadIdentity looks at all of it now.
func (d *Daemon) reloadIdentity(ctx context.Context) {
	if changed, err := d.identity.tls.Reload(); err != nil || changed {
		d.certificatesChanged(ctx, d.identity.tls, "workers", err)
	}
	if d.identity.admin != nil {
		if changed, err := d.identity.admin.Reload(); err != nil || changed {
			d.certificatesChanged(ctx, d.identity.admin, "operators", err)
		}
	}
	if d.identity.deny != nil {
		if changed, err := d.identity.deny.Reload(); err != nil || changed {
			d.denyListChanged(ctx, err)
		}
	}
}

// certificatesChanged is told of a new certificate or bundle that is in use, or of one that is refused. Those whose CA is gone are cut first.
func (d *Daemon) certificatesChanged(ctx context.Context, s *mtls.Source, of string, err error) {
	d.server.CertificatesChanged()
	if err == nil {
		d.log.Info("certificates in use", "listener", of, "fingerprint", s.Fingerprint(), "not_after", s.Expiry())
		r := system("certificate.reload", of)
		r.CertFingerprint, r.Expiry = s.Fingerprint(), s.Expiry()
		_ = d.audit.Write(ctx, r)
	} else {
		d.log.Error("certificates refused, the last good ones stay in use", "listener", of, "error", err)
		_ = d.audit.Write(ctx, system("certificate.refuse", of))
	}
	if d.identity.admin != nil {
		if err := mtls.Apart(d.identity.tls, d.identity.admin); err != nil {
			d.log.Error("workers may reach what is for operators", "error", err)
		}
	}
}

func (d *Daemon) denyListChanged(ctx context.Context, err error) {
	if err != nil {
		d.log.Error("deny list refused, the last good one stays in force", "error", err)
		_ = d.audit.Write(ctx, system("deny_list.refuse", ""))
		return
	}
	d.server.CertificatesChanged()
	d.log.Info("deny list in force", "lines", d.identity.deny.Len())
	_ = d.audit.Write(ctx, system("deny_list.reload", ""))
}
