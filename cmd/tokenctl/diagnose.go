package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/client"
	"github.com/tokenbroker/tokenbroker/mtls"
)

// probing is how long a look at a failed connection may take.
const probing = 5 * time.Second

// explain turns the error of a call into words. The broker's own errors say what is wrong. Of a connection that failed gRPC only tells in
// prose, so another one is made to see why, with errors that have types.
func (s *session) explain(ctx context.Context, err error, t target) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if f := refusal(err, t); f != nil {
		return f
	}
	code := status.Code(err)
	if code == codes.Unavailable || code == codes.DeadlineExceeded {
		if f := diagnose(ctx, s.cfg, min(probing, s.timeout)); f != nil {
			f.err = err
			return f
		}
	}
	f := &failure{exit: exitOf(code), what: "the connection to " + s.cfg.Addr + " was lost", err: err, action: "try again"}
	tooLarge := code == codes.ResourceExhausted && strings.Contains(status.Convert(err).Message(), "larger than max") // gRPC's own words
	switch {
	case code == codes.Unavailable:
	case code == codes.Unimplemented && atSocket(s.cfg.Addr):
		f.what, f.exit = "what listens at "+s.cfg.Addr+" is an agent, which gives tokens and does nothing else", exitFix
		f.action = "give the broker's address with --addr, and an operator's certificate"
	case code == codes.DeadlineExceeded:
		f.what = "no answer within " + s.timeout.String()
		f.action = "ask again: what was begun goes on in the broker; --timeout allows more time"
	case tooLarge:
		f.what, f.action, f.exit = s.cfg.Addr+" does not take this: "+status.Convert(err).Message(), "send less; the broker's limits.request_bytes bounds a request", exitUsage
	default:
		f.what, f.action = s.cfg.Addr+" answered "+code.String()+": "+status.Convert(err).Message(), "is it a tokenbroker?"
	}
	return f
}

// diagnose connects as the client does and says why that fails; nil if it does not. The exit status follows one rule: nobody answers: later;
// somebody else does: fix the configuration; the broker does, and does not take us: denied.
func diagnose(ctx context.Context, cfg client.Config, limit time.Duration) *failure {
	if atSocket(cfg.Addr) {
		return knock(ctx, cfg.Addr, limit)
	}
	if list := strings.Split(cfg.Addr, ","); len(list) > 1 { // none of them answers: the first is as good as any
		cfg.Addr = strings.TrimSpace(list[0])
		cfg.Server = cmp.Or(cfg.Server, hostOf(cfg.Addr))
	}
	source, err := open(ctx, cfg, limit)
	if err != nil {
		f, _ := errors.AsType[*failure](badFiles(cfg, err))
		return f
	}
	tlsConfig, err := source.ClientTLS(cfg.Server)
	if err != nil {
		return &failure{exit: exitFix, what: err.Error(), action: "check --addr and --server-name"}
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return shake(ctx, cfg, tlsConfig)
}

// knock looks whether an agent listens on its socket; nil if one does.
func knock(ctx context.Context, addr string, limit time.Duration) *failure {
	path := strings.TrimPrefix(strings.TrimPrefix(addr, "unix:"), "//")
	dialer := net.Dialer{Timeout: limit}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close()
		return nil
	}
	return noSocket(path, err)
}

// noSocket is why a socket can't be connected to.
func noSocket(path string, err error) *failure {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return &failure{exit: exitDenied, what: "the socket " + path + " is not open to you", action: "the agent's owner lets your user in by a rule in the agent's config (tokenctl agent --config FILE)"}
	case errors.Is(err, fs.ErrNotExist):
		return &failure{exit: exitLater, what: "there is no socket " + path, action: "check that tokenctl agent runs, and --addr"}
	}
	return &failure{exit: exitLater, what: "can't connect to the socket " + path + ": " + inner(err), action: "check that tokenctl agent runs, and --addr"}
}

func open(ctx context.Context, cfg client.Config, limit time.Duration) (*mtls.Source, error) {
	if cfg.Workload == "" {
		return mtls.Open(cfg.Files)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return mtls.OpenWorkload(ctx, mtls.Workload{Socket: cfg.Workload, Files: cfg.Files})
}

// shake does the handshake, and waits for the first byte: a TLS 1.3 server looks at our certificate when we think that we are done.
func shake(ctx context.Context, cfg client.Config, tlsConfig *tls.Config) *failure {
	addr := hostPort(cfg.Addr)
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return unreachable(addr, err)
	}
	defer func() { _ = raw.Close() }()
	if end, ok := ctx.Deadline(); ok {
		_ = raw.SetDeadline(end)
	}
	conn := tls.Client(raw, tlsConfig)
	err = conn.HandshakeContext(ctx)
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	if err != nil {
		return refused(cfg, err)
	}
	return nil
}

// unreachable is why there is no connection.
func unreachable(addr string, err error) *failure {
	f := &failure{exit: exitLater, what: "can't connect to " + addr, action: "check that the broker runs, and --addr"}
	dns, isDNS := errors.AsType[*net.DNSError](err)
	var timeout net.Error
	switch {
	case isDNS && strings.HasPrefix(dns.Name, "tcp/"): // the name of a service, in place of a port
		f.what += ": there is no such port"
		f.exit = exitUsage
	case isDNS && dns.IsNotFound:
		f.what += fmt.Sprintf(": there is no host %q", dns.Name)
	case isDNS:
		f.what += fmt.Sprintf(": the name %q can't be looked up", dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		f.what += ": nothing listens there"
	case errors.As(err, &timeout) && timeout.Timeout():
		f.what += ": no answer"
		f.action += "; a firewall may be between"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		f.what += ": there is no way to that host"
	default:
		f.what += ": " + inner(err)
		f.exit = exitUsage // an address that can't be
	}
	return f
}

// inner is the innermost text of a network error, without the addresses.
func inner(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err.Error()
	}
	return err.Error()
}

// refused is why the handshake failed.
func refused(cfg client.Config, err error) *failure {
	f := &failure{exit: exitFix}
	if v, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		f.what, f.action = distrust(cfg, v)
		return f
	}
	var timeout net.Error
	op, isOp := errors.AsType[*net.OpError](err)
	_, notTLS := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case isOp && op.Op == "remote error":
		f.what, f.action, f.exit = alert(cfg, op.Err.Error())
	case notTLS:
		f.what, f.action = "what listens at "+cfg.Addr+" does not speak TLS", "check --addr: is it the broker's gRPC port?"
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		f.what, f.action, f.exit = cfg.Addr+" takes connections and says nothing", "is the broker stuck, or is it something else?", exitLater
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.ErrUnexpectedEOF):
		f.what, f.action, f.exit = cfg.Addr+" closed the connection in the handshake", "check --addr; a proxy in front, or a broker that is stopping or full, does that", exitLater
	default:
		f.what, f.action = "no TLS connection with "+cfg.Addr+": "+inner(err), "check --addr, --ca, --cert and --key"
	}
	return f
}

// distrust is why we do not take the broker's certificate.
func distrust(cfg client.Config, v *tls.CertificateVerificationError) (what, action string) {
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](v.Err)
	name, isName := errors.AsType[x509.HostnameError](v.Err)
	_, isUnknown := errors.AsType[x509.UnknownAuthorityError](v.Err)
	switch {
	case isInvalid && invalid.Reason == x509.Expired:
		return fmt.Sprintf("the broker's certificate is not valid now: it is for %s to %s", stamp(invalid.Cert.NotBefore), stamp(invalid.Cert.NotAfter)),
			"renew the broker's certificate; check the clock of this machine"
	case isUnknown:
		return "the broker's certificate was not issued by the CA in " + cfg.Files.CA,
			"check --ca and --addr: is it this broker's CA, and that broker?"
	case isName:
		return fmt.Sprintf("the broker's certificate is not for %q but for %s", cfg.Server, names(name.Certificate)),
			"check --addr; if the broker is the right one, name it with --server-name"
	default:
		return "the broker's certificate is not accepted: " + v.Err.Error(), "check --addr and --server-name"
	}
}

// names are what a certificate is for.
func names(c *x509.Certificate) string {
	all := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	for _, u := range c.URIs {
		all = append(all, u.String())
	}
	return cmp.Or(strings.Join(all, ", "), "nobody")
}

// alert is what the broker's TLS alert says, which is a text only.
func alert(cfg client.Config, text string) (what, action string, exit int) {
	text = strings.TrimPrefix(text, "tls: ")
	switch text {
	case "expired certificate":
		return "the broker does not take your certificate " + cfg.Files.Cert + ": it has expired", "renew it; check the clocks of both machines", exitDenied
	case "unknown certificate authority":
		return "the broker does not take your certificate " + cfg.Files.Cert + ": its CA is not one of the broker's", "get one from the broker's CA", exitDenied
	case "bad certificate", "unsupported certificate", "certificate required", "access denied", "revoked certificate", "unknown certificate":
		return "the broker does not take your certificate " + cfg.Files.Cert + " (" + text + ")",
			"it has to hold one SPIFFE ID and the usage clientAuth, be of a CA of its trust domain, and not be on the deny list; the broker's log says more", exitDenied
	default:
		return "what listens at " + cfg.Addr + " refuses the connection: " + text, "check --addr: is it the broker's gRPC port?", exitFix
	}
}
