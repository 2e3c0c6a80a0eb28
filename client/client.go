package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// Config says where the broker is and as whom to speak to it.
type Config struct {
	Addr     string            // "host:port", several with commas between, a target as grpc takes it, or "unix:///path" of an agent; required
	Server   string            // SPIFFE ID, DNS name or IP address that the broker's certificate has to hold; "" = the host of each address
	Files    mtls.Files        // this worker's certificate and key, and the CA of the broker; required without Workload, not read for a socket
	Workload string            // address of the SPIFFE Workload API, which gives certificate, key and CAs in place of Files
	Dial     []grpc.DialOption // further options, e.g. a dialer; usually none
	OnChange func(Change)      // told of each change of every credential in use, as by Client.OnChange; nil = nobody
}

// Client speaks to a broker. Close it.
type Client struct {
	conn   *grpc.ClientConn
	tokens tokenbrokerv1.TokenServiceClient
	source *mtls.Source
	calls  singleflight.Group

	life   context.CancelFunc
	closed chan struct{} // closed by Close
	once   sync.Once
	wg     sync.WaitGroup

	mu      sync.RWMutex
	slots   map[string]*slot // credential and variant → what is held of it
	sweepAt int              // so many slots are a reason to look for those that are of no use any more
}

const (
	skew        = 2 * time.Second // a token that ends sooner is as good as over: it has to travel yet
	callTimeout = 30 * time.Second
	reload      = 10 * time.Second // between looks at the certificate files
	manySlots   = 1024
	apiTimeout  = 10 * time.Second // for the first answer of the Workload API
)

// New makes a client. It connects when it is first used. With Config.Workload it waits up to 10 s for the Workload API.
func New(cfg Config) (*Client, error) {
	if cfg.Addr == "" {
		return nil, errors.New("client: Config.Addr is missing: the broker's host:port")
	}
	to, err := parseTarget(cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	source, err := open(cfg, to)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	dial, err := to.options(cfg.Server, source)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	conn, err := grpc.NewClient(to.name, slices.Concat(dial, []grpc.DialOption{
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}, cfg.Dial)...)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	c := &Client{conn: conn, tokens: tokenbrokerv1.NewTokenServiceClient(conn), source: source, closed: make(chan struct{}),
		slots: map[string]*slot{}, sweepAt: manySlots}
	ctx, cancel := context.WithCancel(context.Background())
	c.life = cancel
	if source != nil {
		c.wg.Go(func() { source.Watch(ctx, reload, func(error) {}) })
	}
	return c, nil
}

// open gets the certificates; nil for a socket.
func open(cfg Config, to target) (*mtls.Source, error) {
	if to.local {
		return nil, nil
	}
	if cfg.Workload == "" {
		return mtls.Open(cfg.Files)
	}
	ctx, cancel := context.WithTimeout(context.Background(), apiTimeout)
	defer cancel()
	return mtls.OpenWorkload(ctx, mtls.Workload{Socket: cfg.Workload, Files: cfg.Files})
}

// NewFromEnv is New with ConfigFromEnv; what is missing there is an error.
func NewFromEnv() (*Client, error) {
	cfg := ConfigFromEnv()
	var missing []string
	for name, v := range map[string]string{"ADDR": cfg.Addr, "CA": cfg.Files.CA, "CERT": cfg.Files.Cert, "KEY": cfg.Files.Key} {
		if v == "" && (name == "ADDR" || cfg.Workload == "" && !strings.HasPrefix(cfg.Addr, "unix:")) {
			missing = append(missing, "TOKENBROKER_"+name)
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return nil, fmt.Errorf("client: set %s in the environment", strings.Join(missing, ", "))
	}
	return New(cfg)
}

// ConfigFromEnv is what the environment says: TOKENBROKER_ADDR, TOKENBROKER_CA, TOKENBROKER_CERT, TOKENBROKER_KEY, and
// TOKENBROKER_SERVER_NAME if the broker's certificate does not hold the address's host. TOKENBROKER_WORKLOAD_API stands in for the files,
// and if there is none of these, SPIFFE_ENDPOINT_SOCKET does. What is not set stays empty.
func ConfigFromEnv() Config {
	cfg := Config{Addr: os.Getenv("TOKENBROKER_ADDR"), Server: os.Getenv("TOKENBROKER_SERVER_NAME"), Workload: os.Getenv("TOKENBROKER_WORKLOAD_API"),
		Files: mtls.Files{CA: os.Getenv("TOKENBROKER_CA"), Cert: os.Getenv("TOKENBROKER_CERT"), Key: os.Getenv("TOKENBROKER_KEY")}}
	if f := cfg.Files; cfg.Workload == "" && f.CA == "" && f.Cert == "" && f.Key == "" {
		cfg.Workload = os.Getenv("SPIFFE_ENDPOINT_SOCKET")
	}
	return cfg
}

// Conn is the connection, for the services that a Client has no methods for: tokenbrokerv1.NewCredentialServiceClient(c.Conn()). Close
// closes it.
func (c *Client) Conn() grpc.ClientConnInterface { return c.conn }

// Close ends the connection and what runs on it: calls and subscriptions end with an error.
func (c *Client) Close() error {
	c.once.Do(func() { close(c.closed) })
	c.life()
	err := c.conn.Close()
	c.wg.Wait()
	return err
}

// Token returns a token that is valid now: from memory, or from the broker. While the broker does not answer, the last good one is
// returned until it ends. ctx governs the wait; the call itself is shared by all who wait for the same token. Callers share the Token's
// Scopes and Metadata: do not change them.
func (c *Client) Token(ctx context.Context, credential string, opts ...Option) (tokenbroker.Token, error) {
	s, least := c.slot(credential, opts)
	return c.token(ctx, s, least)
}

func (c *Client) token(ctx context.Context, s *slot, least time.Duration) (tokenbroker.Token, error) {
	now := time.Now()
	if h := s.newest.Load(); h != nil && now.Before(h.askAt) && h.good(now, least) {
		return h.token, nil
	}
	ch := c.calls.DoChan(s.key+"\x00"+least.String(), func() (any, error) { return c.fetch(s, least) })
	select {
	case r := <-ch:
		if h := s.newest.Load(); r.Err != nil && h != nil && unanswered(r.Err) && h.good(time.Now(), least) {
			return h.token, nil
		}
		if r.Err != nil {
			return tokenbroker.Token{}, r.Err
		}
		return r.Val.(tokenbroker.Token), nil
	case <-ctx.Done():
		return tokenbroker.Token{}, ctx.Err()
	}
}

// fetch asks the broker. After a failure the next question waits a little, so that a worker in a loop does not make a storm.
func (c *Client) fetch(s *slot, least time.Duration) (tokenbroker.Token, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	r := &tokenbrokerv1.GetTokenRequest{Credential: s.selector.GetCredential(), Scopes: s.selector.GetScopes(),
		Subject: s.selector.GetSubject(), Audience: s.selector.GetAudience()}
	if least > 0 {
		r.MinValidity = durationpb.New(least)
	}
	resp, err := c.tokens.GetToken(ctx, r)
	if err != nil {
		err = fromStatus(err)
		s.failed(err)
		return tokenbroker.Token{}, err
	}
	h := &held{token: fromProto(resp.GetToken())}
	if t := resp.GetRefreshTime(); t != nil {
		h.askAt, h.due = t.AsTime(), t.AsTime()
	}
	if floor := time.Now().Add(time.Until(h.token.Expiry) / 10); h.askAt.Before(floor) {
		h.askAt = floor // the broker's refresh is due, or fails: give it time
	}
	s.keep(h)
	return h.token, nil
}

// ReportRejected tells the broker that a resource server refused a token with an HTTP status, and returns the current one: a newer
// one if there is or can be one. The duration is how long to wait before a further report can help, 0 if there is a newer token.
func (c *Client) ReportRejected(ctx context.Context, credential string, rejected tokenbroker.Token, httpStatus int, opts ...Option) (tokenbroker.Token, time.Duration, error) {
	s, _ := c.slot(credential, opts)
	var a ask
	for _, o := range opts {
		o(&a)
	}
	resp, err := c.tokens.ReportRejected(ctx, &tokenbrokerv1.ReportRejectedRequest{Credential: credential, Scopes: s.selector.GetScopes(),
		Subject: s.selector.GetSubject(), Audience: s.selector.GetAudience(), Generation: uint64(rejected.Generation),
		HttpStatus: int32(min(httpStatus, 999)), ErrorCode: a.errorCode})
	if err != nil {
		return tokenbroker.Token{}, 0, fromStatus(err)
	}
	if resp.GetToken() == nil { // it may report, and not have the token any more
		return tokenbroker.Token{}, resp.GetRetryDelay().AsDuration(), tokenbroker.ErrNotFound
	}
	t := fromProto(resp.GetToken())
	s.keep(&held{token: t, askAt: time.Now().Add(time.Until(t.Expiry) / 10)})
	return t, resp.GetRetryDelay().AsDuration(), nil
}

func fromProto(t *tokenbrokerv1.Token) tokenbroker.Token {
	return tokenbroker.Token{AccessToken: tokenbroker.NewSecret(t.GetAccessToken()), Type: t.GetTokenType(), Scopes: t.GetScopes(),
		Expiry: t.GetExpireTime().AsTime(), ExpiryEstimated: t.GetExpireTimeEstimated(), Generation: tokenbroker.Generation(t.GetGeneration()),
		Metadata: t.GetMetadata()}
}
