package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/tokenbroker/tokenbroker/client"
	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// session is a command with a connection to the broker.
type session struct {
	*cli
	cfg       client.Config
	client    *client.Client
	tokens    tokenbrokerv1.TokenServiceClient
	creds     tokenbrokerv1.CredentialServiceClient
	clients   tokenbrokerv1.OAuthClientServiceClient
	consents  tokenbrokerv1.ConsentServiceClient
	providers tokenbrokerv1.ProviderServiceClient
	audits    tokenbrokerv1.AuditServiceClient
	policies  tokenbrokerv1.PolicyServiceClient
}

// config is what the environment says, overlaid by flags. What is missing is an error that names it.
func (c *cli) config() (client.Config, error) {
	cfg := client.ConfigFromEnv()
	switch {
	case c.workload != "": // in place of what the environment says
		cfg.Workload, cfg.Files = c.workload, mtls.Files{}
	case c.ca != "" || c.cert != "" || c.key != "":
		cfg.Workload = ""
	}
	if cfg.Addr = cmp.Or(c.addr, cfg.Addr); strings.HasPrefix(cfg.Addr, "/") && !strings.Contains(cfg.Addr, ",") {
		return cfg, &failure{exit: exitUsage, what: "address " + cfg.Addr + ": is a path", action: "for an agent's socket give unix://" + cfg.Addr + " with --addr or TOKENBROKER_ADDR"}
	}
	files := cfg.Workload == "" && !atSocket(cfg.Addr)
	var missing []string
	for _, s := range []struct {
		name, flag string
		value      *string
		required   bool
	}{
		{"addr", c.addr, &cfg.Addr, true},
		{"ca", c.ca, &cfg.Files.CA, files},
		{"cert", c.cert, &cfg.Files.Cert, files},
		{"key", c.key, &cfg.Files.Key, files},
		{"server-name", c.server, &cfg.Server, false},
	} {
		*s.value = cmp.Or(s.flag, *s.value)
		if *s.value == "" && s.required {
			missing = append(missing, "TOKENBROKER_"+strings.ToUpper(s.name)+" (or --"+s.name+")")
		}
	}
	if len(missing) > 0 {
		return cfg, usageError("not set: "+strings.Join(missing, ", "), `. DIR/env   # the file that "tokenbrokerd init DIR" or "dev" made`)
	}
	if atSocket(cfg.Addr) {
		return client.Config{Addr: cfg.Addr}, nil
	}
	if !strings.Contains(cfg.Addr, ",") { // of several, each has to have a certificate of its own host
		cfg.Server = cmp.Or(cfg.Server, hostOf(cfg.Addr))
	}
	return cfg, nil
}

// atSocket reports whether an address is a socket of this host: that of an agent, which knows us by our uid and wants no certificate.
func atSocket(addr string) bool { return strings.HasPrefix(addr, "unix:") }

// hostOf is the host of an address, which may be a gRPC target.
func hostOf(addr string) string {
	addr = hostPort(addr)
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}

func hostPort(addr string) string { return addr[strings.LastIndex(addr, "/")+1:] }

// connect makes a session. Close it. Nothing is sent yet.
func (c *cli) connect() (*session, error) {
	cfg, err := c.config()
	if err != nil {
		return nil, err
	}
	cl, err := client.New(cfg)
	if err != nil {
		return nil, badFiles(cfg, err)
	}
	conn := cl.Conn()
	return &session{cli: c, cfg: cfg, client: cl, tokens: tokenbrokerv1.NewTokenServiceClient(conn),
		creds: tokenbrokerv1.NewCredentialServiceClient(conn), clients: tokenbrokerv1.NewOAuthClientServiceClient(conn),
		consents: tokenbrokerv1.NewConsentServiceClient(conn), providers: tokenbrokerv1.NewProviderServiceClient(conn),
		audits: tokenbrokerv1.NewAuditServiceClient(conn), policies: tokenbrokerv1.NewPolicyServiceClient(conn)}, nil
}

// Close ends the connection.
func (s *session) Close() { _ = s.client.Close() }

// badFiles is why the certificate files can't be used.
func badFiles(cfg client.Config, err error) error {
	f := &failure{exit: exitFix, what: strings.TrimPrefix(err.Error(), "client: "), err: err,
		action: "check --ca, --cert and --key, or TOKENBROKER_CA, _CERT and _KEY"}
	switch {
	case errors.Is(err, client.ErrAddress):
		f.exit, f.action = exitUsage, "check --addr, or TOKENBROKER_ADDR"
		return f
	case cfg.Workload != "":
		f.action = "check --workload-api, TOKENBROKER_WORKLOAD_API or SPIFFE_ENDPOINT_SOCKET, and that the agent runs"
		return f
	}
	if end, ok := endOf(cfg.Files.Cert); ok && time.Now().After(end) {
		f.exit, f.what = exitDenied, fmt.Sprintf("your certificate %s ended at %s", cfg.Files.Cert, stamp(end))
		f.action = "renew it"
	}
	return f
}

// endOf is when the first certificate of a file ends.
func endOf(path string) (time.Time, bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return time.Time{}, false
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return time.Time{}, false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}, false
	}
	return cert.NotAfter, true
}

// call makes one call and explains its error.
func call[Req, Resp proto.Message](ctx context.Context, s *session, method func(context.Context, Req, ...grpc.CallOption) (Resp, error), req Req) (Resp, error) {
	limited, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	resp, err := method(limited, req)
	if err != nil {
		return resp, s.explain(ctx, err, targetOf(req))
	}
	return resp, nil
}
