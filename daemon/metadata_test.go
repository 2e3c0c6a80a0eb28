package daemon_test

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/daemon"
	"github.com/tokenbroker/tokenbroker/keyring"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/store"
	"github.com/tokenbroker/tokenbroker/store/bolt"
)

// heard is a log that tells when a line with a text was written.
type heard struct {
	logged
	text string
	once chan struct{}
}

// Write implements io.Writer. slog writes a line at a time, and one line only at once.
func (h *heard) Write(p []byte) (int, error) {
	if strings.Contains(string(p), h.text) {
		select {
		case h.once <- struct{}{}:
		default:
		}
	}
	return h.logged.Write(p)
}

// runUntil runs a broker until its log holds a text, and returns the log.
func runUntil(t *testing.T, cfg daemon.Config, text string) *heard {
	t.Helper()
	h := &heard{text: text, once: make(chan struct{}, 1)}
	cfg.Log = slog.New(slog.NewTextHandler(h, nil))
	d, err := daemon.Open(t.Context(), cfg)
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	<-h.once
	stop()
	must(t, <-ended)
	return h
}

func TestMetadataIsFetchedAndKeptForTheNextStart(t *testing.T) {
	cfg := config(t)
	var issuer string
	reached := make(chan struct{}, 100)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reached <- struct{}{}
		_, _ = fmt.Fprintf(w, `{"issuer":%q,"token_endpoint":"%[1]s/token","jwks_uri":"https://keys.example/jwks"}`, issuer)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	issuer = server.URL
	ca := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	cfg.Providers["found"] = provider.Profile{Issuer: issuer, Discover: new(true), AllowPrivate: true, CAFile: ca}

	first := runUntil(t, cfg, "provider metadata: in use")
	if got := first.lines("level=WARN", "provider metadata: not taken", "provider=found", "jwks_uri: is on keys.example"); len(got) != 1 {
		t.Errorf("an endpoint on another host: got %d lines, want 1", len(got))
	}
	if got := len(reached); got != 1 {
		t.Errorf("the server was asked %d times, want once", got)
	}

	kept(t, cfg, func(s *store.Store) {
		document, err := s.Metadata(t.Context(), "found")
		if err != nil || !strings.Contains(string(document), issuer+"/token") {
			t.Errorf("kept %q, %v", document, err)
		}
		must(t, s.PutMetadata(t.Context(), "found", []byte("junk")))
	})
	second := runUntil(t, cfg, "provider metadata: in use")
	if got := second.lines("level=ERROR", "provider metadata in the store is of no use", "found"); len(got) != 1 {
		t.Errorf("a copy that can't be read: got %d lines, want 1", len(got))
	}
}

// kept looks into the store of a broker that does not run.
func kept(t *testing.T, cfg daemon.Config, look func(*store.Store)) {
	t.Helper()
	kek, err := keyring.FileKEK(cfg.KEKFile)
	must(t, err)
	engine, err := bolt.Open(cfg.StorePath, bolt.Options{})
	must(t, err)
	defer func() { must(t, engine.Close()) }()
	s, err := store.Open(t.Context(), engine, store.Options{KEK: kek})
	must(t, err)
	look(s)
}

func TestAStartWithoutNetworkAndWithoutACopyGoesOn(t *testing.T) {
	cfg := config(t)
	cfg.Providers["away"] = provider.Profile{Issuer: "https://127.0.0.1:1", Discover: new(true), AllowPrivate: true}
	h := runUntil(t, cfg, "provider metadata")
	if got := h.lines("level=WARN", "provider metadata: no new document", "provider=away", "connect_failed"); len(got) != 1 {
		t.Errorf("got %d lines, want 1", len(got))
	}
}
