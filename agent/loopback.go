package agent

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/tokenbroker/tokenbroker"
)

// listenLoopback listens on a port of 127.0.0.1, and on nothing else: not on a name, which a resolver could lead elsewhere.
// field is that of Config which holds the address.
func listenLoopback(ctx context.Context, field, addr string) (*net.TCPListener, error) {
	if at, err := netip.ParseAddrPort(addr); err != nil || at.Addr() != netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
		return nil, tokenbroker.Invalid(field, fmt.Errorf("%q is no address as 127.0.0.1:8173; an agent serves its own host alone", addr))
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp4", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return l.(*net.TCPListener), nil
}

// errUnknowable says that this system does not tell who owns a socket.
var errUnknowable = errors.New("this system does not say who owns a socket")

// nobody is no uid of anybody, so no rule is for it.
const nobody = ^uint32(0)

// identifyTCP finds the uid that owns the other end of a loopback connection.
func (a *Agent) identifyTCP(c net.Conn) (Peer, error) {
	from, to := c.RemoteAddr().(*net.TCPAddr).AddrPort(), c.LocalAddr().(*net.TCPAddr).AddrPort()
	p := Peer{Addr: from.String()}
	uid, err := ownerOfTCP(from, to)
	switch {
	case err == nil:
		p.UID = uid
		return a.namespace.known(p)
	case a.cfg.UnidentifiedAsOwn && errors.Is(err, errUnknowable): // where it can tell, who hides is refused
		p.Unidentified, p.UID = true, ownUID()
	default:
		a.outage.Do(func() {
			a.cfg.Log.Warn("the user of a loopback connection can't be found: it is refused", "error", err)
		})
		p.Unidentified, p.UID = true, nobody
	}
	return p, nil
}

// guardTCP refuses requests that were meant for another host: a page whose name was made to lead here sends the name along.
func guardTCP(at net.Addr, next http.Handler) http.Handler {
	_, port, _ := net.SplitHostPort(at.String())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "127.0.0.1:"+port && r.Host != "localhost:"+port {
			refuse(w, &tokenbroker.Problem{Err: tokenbroker.ErrNotAllowed, Detail: "the request is for another host"})
			return
		}
		if p := caller(r.Context()); p.Unidentified && p.UID == nobody {
			refuse(w, &tokenbroker.Problem{Err: tokenbroker.ErrNotAllowed, Detail: "which user asks can't be found"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// bearer is the secret that callers of the loopback port show.
type bearer struct {
	path string
	sum  [sha256.Size]byte // of the whole header
}

// newBearer makes a secret and writes it as the header that carries it: curl -H @FILE.
func newBearer(path string) (*bearer, error) {
	if err := checkFolder(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("the bearer file: %w", err)
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	value := "Bearer " + base64.RawURLEncoding.EncodeToString(secret)
	f, err := os.CreateTemp(filepath.Dir(path), ".bearer-*") // of mode 0600
	if err != nil {
		return nil, fmt.Errorf("write the bearer file: %w", err)
	}
	_, err = fmt.Fprintln(f, "Authorization:", value)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return nil, fmt.Errorf("write the bearer file: %w", err)
	}
	return &bearer{path: path, sum: sha256.Sum256([]byte(value))}, nil
}

// remove takes the file away.
func (b *bearer) remove() {
	if b != nil {
		_ = os.Remove(b.path)
	}
}

// guard refuses who does not show the secret.
func (b *bearer) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := sha256.Sum256([]byte(r.Header.Get("Authorization")))
		if subtle.ConstantTimeCompare(got[:], b.sum[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="tokenbroker agent"`)
			problem(w, http.StatusUnauthorized, statusOf(tokenbroker.Invalid("header",
				errors.New("the header Authorization is missing or not the secret of the agent's bearer file, which holds the whole header: curl -H @FILE"))))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// openLoopback opens the HTTP port, if there is to be one.
func (a *Agent) openLoopback(ctx context.Context) error {
	if a.cfg.HTTP == "" {
		return nil
	}
	if a.cfg.BearerFile == "" {
		return tokenbroker.Invalid("BearerFile", errors.New("is missing: the HTTP port needs one, where the secret goes that its callers have to show"))
	}
	l, err := listenLoopback(ctx, "HTTP", a.cfg.HTTP)
	if err != nil {
		return err
	}
	if a.bearer, err = newBearer(a.cfg.BearerFile); err != nil {
		_ = l.Close()
		return err
	}
	a.fronts = append(a.fronts, a.newFront("http", l, a.identifyTCP, guardTCP(l.Addr(), a.bearer.guard(a.routes())), nil))
	return nil
}
