package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc"

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
	addr   string
	source *mtls.Source // nil = a socket
	conn   *grpc.ClientConn
	tokens tokenbrokerv1.TokenServiceClient
	calls  singleflight.Group
	all    *watcher // of Config.OnChange; nil = nobody

	life   context.CancelFunc
	closed chan struct{} // closed by Close
	wg     sync.WaitGroup

	index

	mu     sync.Mutex // is taken before a slot's, never after
	ended  bool
	shards []*shard
	most   int          // selectors of a stream
	begin  func(*shard) // runs it until Close

	rejections rejections // what resource servers refused
}

const (
	skew        = 2 * time.Second // a token that ends sooner is as good as over: it has to travel yet
	callTimeout = 30 * time.Second
	reload      = 10 * time.Second // between looks at the certificate files
	apiTimeout  = 10 * time.Second // for the first answer of the Workload API
)

// New makes a client. It connects when it is first used. With Config.Workload it waits up to 10 s for the Workload API.
func New(cfg Config) (*Client, error) {
	if cfg.Addr == "" {
		return nil, errors.New("client: Config.Addr is missing: the broker's host:port, or unix:///path of an agent")
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
	conn, err := grpc.NewClient(to.name, slices.Concat(dial, cfg.Dial)...)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	c := &Client{addr: cfg.Addr, source: source, conn: conn, tokens: tokenbrokerv1.NewTokenServiceClient(conn), closed: make(chan struct{}), most: mostSelectors}
	c.run(source, cfg.OnChange)
	return c, nil
}

// run starts what goes on until Close.
func (c *Client) run(source *mtls.Source, onChange func(Change)) {
	ctx, cancel := context.WithCancel(context.Background())
	c.life = cancel
	c.begin = func(s *shard) { c.wg.Go(func() { s.run(ctx) }) }
	if source != nil {
		c.wg.Go(func() { source.Watch(ctx, reload, func(error) {}) })
	}
	if onChange != nil {
		c.all = newWatcher()
		c.wg.Go(func() { c.tellAll(ctx, onChange) })
	}
}

// open gets the certificates; nil for a socket, which needs none.
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

// Conn is the connection, for the services that a Client has no methods for: tokenbrokerv1.NewCredentialServiceClient(c.Conn()). Close
// closes it.
func (c *Client) Conn() grpc.ClientConnInterface { return c.conn }

// Addr is Config.Addr.
func (c *Client) Addr() string { return c.addr }

// CertificateEnd is when this worker's certificate ends; the zero time at a socket, which takes none.
func (c *Client) CertificateEnd() time.Time {
	if c.source == nil {
		return time.Time{}
	}
	return c.source.Expiry()
}

// Close ends the connection and what runs on it: calls and subscriptions end with an error. It waits for a function of OnChange that runs.
func (c *Client) Close() error {
	c.mu.Lock()
	if !c.ended {
		c.ended = true
		close(c.closed)
	}
	c.mu.Unlock()
	c.life()
	err := c.conn.Close()
	c.each((*slot).stop)
	c.wg.Wait()
	return err
}

// spawn runs something that Close waits for, unless the client is closed.
func (c *Client) spawn(do func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.wg.Go(do)
	}
	return !c.ended
}
