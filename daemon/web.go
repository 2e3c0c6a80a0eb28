package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/tokenbroker/tokenbroker/consent"
	"github.com/tokenbroker/tokenbroker/mtls"
	"github.com/tokenbroker/tokenbroker/web"
)

// Consent is the HTTPS listener for browsers, for consents by link.
type Consent struct {
	Listener  net.Listener // nil = listen on Listen
	Listen    string       // TCP address; "" = none, and no consents by link
	PublicURL string       // what browsers reach it by, https://HOST[:PORT]; the redirect URI is this with /consent/callback
	Cert, Key string       // PEM files of its certificate, which browsers have to trust, and its key (mode 0600)
}

func (c Consent) none() bool { return c.Listener == nil && c.Listen == "" }

// open checks the settings and reads the certificate; nil if there is to be no listener.
func (c Consent) open() (*mtls.Public, error) {
	if c.none() {
		if c.PublicURL != "" || c.Cert != "" || c.Key != "" {
			return nil, errors.New("consent.public_url, consent.cert_file and consent.key_file are of no use without consent.listen")
		}
		return nil, nil //nolint:nilnil // no listener is no error
	}
	_, urlErr := consent.ParsePublicURL(c.PublicURL)
	if urlErr != nil {
		urlErr = fmt.Errorf("consent.public_url: %w", urlErr)
	}
	certificate, err := mtls.OpenPublic(c.Cert, c.Key)
	if err != nil {
		err = fmt.Errorf("consent listener: %w", err)
	}
	return certificate, errors.Join(urlErr, err)
}

// webListener is the listener for browsers.
type webListener struct {
	listen      net.Listener
	certificate *mtls.Public
	server      *http.Server
}

// openWeb listens for browsers, if the settings say so.
func (d *Daemon) openWeb(ctx context.Context) (err error) {
	if d.cfg.Consent.none() {
		return nil
	}
	l := d.cfg.Consent.Listener
	if l == nil {
		if l, err = new(net.ListenConfig).Listen(ctx, "tcp", d.cfg.Consent.Listen); err != nil {
			return fmt.Errorf("listen for browsers: %w", err)
		}
	}
	d.web = &webListener{listen: l, certificate: d.certificate, server: &http.Server{
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		WriteTimeout: 2 * time.Minute,                                          // more than redeeming a code takes
		ErrorLog:     slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}} // what strangers do to a public port is not worth a line
	d.closers = append(d.closers, func() { _ = l.Close() })
	return nil
}

// serve serves the pages until close.
func (w *webListener) serve(consents *consent.Service, cfg Config) error {
	pages, err := web.New(web.Config{Consents: consents, PublicURL: cfg.Consent.PublicURL, Log: cfg.Log})
	if err != nil {
		return err
	}
	w.server.Handler = pages
	if err := w.server.Serve(tls.NewListener(w.listen, w.certificate.TLS())); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// close lets browsers that are served go, until ctx ends.
func (w *webListener) close(ctx context.Context) {
	if w.server.Shutdown(ctx) != nil {
		_ = w.server.Close()
	}
}

// ConsentAddr is where the pages are served; nil if they are not.
func (d *Daemon) ConsentAddr() net.Addr {
	if d.web == nil {
		return nil
	}
	return d.web.listen.Addr()
}

// watchWeb takes up changed certificates of the pages.
func (d *Daemon) watchWeb(ctx context.Context) {
	d.web.certificate.Watch(ctx, d.cfg.WatchEvery, func(err error) { d.webCertificateChanged(ctx, err) })
}

func (d *Daemon) webCertificateChanged(ctx context.Context, err error) {
	if err != nil {
		_ = d.audit.Write(ctx, system("certificate.refuse", "consent"))
		d.log.Error("the certificate for browsers is refused, the last good one stays in use", "error", err)
		return
	}
	d.log.Info("certificate for browsers in use", "fingerprint", d.web.certificate.Fingerprint(), "not_after", d.web.certificate.Expiry())
	r := system("certificate.reload", "consent")
	r.CertFingerprint, r.Expiry = d.web.certificate.Fingerprint(), d.web.certificate.Expiry()
	_ = d.audit.Write(ctx, r)
}
