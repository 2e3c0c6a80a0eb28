package consent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// How long things are good for.
const (
	stateLife  = 10 * time.Minute   // from the authorization URL to the callback
	linkLife   = 30 * time.Minute   // of a link
	acceptLife = 7 * 24 * time.Hour // from a consent by link to its acceptance
	keepEnded  = 24 * time.Hour     // for ListConsents
	deviceMost = 30 * time.Minute   // of a device code, whatever the provider says
	finishTime = 90 * time.Second   // of redeeming, adopting and the trial; no caller cuts it short
	maxEnded   = 1000               // kept, the newest ones
	maxListed  = 1000               // of ListConsents
)

// CallbackPath is the path of the redirect URI of consents by link, LinkPath what their links begin with.
const (
	CallbackPath = "/consent/callback"
	LinkPath     = "/consent/l/"
)

// Config is what a Service needs.
type Config struct {
	Records       Records       // required
	Configuration Configuration // required
	Engine        Engine        // required
	Codes         Codes         // required
	Devices       Devices       // required
	Profiles      Profiles      // required
	// PublicURL is what browsers reach the consent listener by, https://host[:port]. "" = no consents by link.
	PublicURL string
	// Audit records what a browser or a device did, before it takes effect; on an error it does not. Nil records nothing. What callers do is
	// recorded by whoever let them in.
	Audit func(ctx context.Context, action string, c tokenbroker.Consent) error
	// Log is told how consents end. Nil = slog.Default().
	Log *slog.Logger
	// PerIdentity and InAll bound the consents that are not over. 0 = 64 and 1024.
	PerIdentity, InAll int
}

// Service keeps consents. Its methods may be called from many goroutines; Run has to run beside them.
type Service struct {
	cfg       Config
	log       *slog.Logger
	started   time.Time
	beginning chan struct{} // held while a consent is counted and written
	finishing chan struct{} // held while an account is compared and adopted
	devices   chan string   // consents to begin to poll for, to Run
}

// New makes a Service.
func New(cfg Config) (*Service, error) {
	if cfg.Records == nil || cfg.Configuration == nil || cfg.Engine == nil || cfg.Codes == nil || cfg.Devices == nil || cfg.Profiles == nil {
		return nil, errors.New("consent: Config needs Records, Configuration, Engine, Codes, Devices and Profiles")
	}
	if cfg.PublicURL != "" {
		if _, err := ParsePublicURL(cfg.PublicURL); err != nil {
			return nil, err
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.PerIdentity <= 0 {
		cfg.PerIdentity = 64
	}
	if cfg.InAll <= 0 {
		cfg.InAll = 1024
	}
	return &Service{cfg: cfg, log: cfg.Log, started: time.Now(), beginning: make(chan struct{}, 1), finishing: make(chan struct{}, 1),
		devices: make(chan string, cfg.InAll)}, nil
}

// ParsePublicURL reads the public URL of a consent listener: https, a host, perhaps a port, and nothing else.
func ParsePublicURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "" {
		return nil, errors.New("the public URL of the consent listener must be https://HOST or https://HOST:PORT, without a path")
	}
	return u, nil
}

// LinkRedirect is the redirect URI of consents by link, "" if there are none. It has to be registered at the provider.
func (s *Service) LinkRedirect() string {
	if s.cfg.PublicURL == "" {
		return ""
	}
	return s.cfg.PublicURL + CallbackPath
}

// hold takes a lock of one seat, or gives up with ctx.
func hold(ctx context.Context, seat chan struct{}) (leave func(), err error) {
	select {
	case seat <- struct{}{}:
		return func() { <-seat }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// detached is a context for what must not end because a caller left.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), finishTime)
}

// put writes a consent as it is now. If somebody else was faster, the error says how it stands.
func (s *Service) put(ctx context.Context, c tokenbroker.Consent) (tokenbroker.Consent, error) {
	next, err := s.cfg.Records.PutConsent(ctx, c, c.Version)
	if !errors.Is(err, tokenbroker.ErrETagMismatch) {
		return next, err
	}
	now, err := s.cfg.Records.Consent(ctx, c.ID)
	if err != nil {
		return now, err
	}
	return now, ended(now)
}

// ended is the error of whoever comes too late for a consent.
func ended(c tokenbroker.Consent) error {
	p := &tokenbroker.Problem{Err: tokenbroker.ErrConsentEnded, Metadata: map[string]string{"consentState": string(c.State)}}
	switch {
	case c.Step == tokenbroker.StepRedeeming || c.Step == tokenbroker.StepAdopting:
		p.Detail = "it is used, and being taken up"
	case c.Code != "":
		p.Detail = fmt.Sprintf("it is %s (%s): begin another one", c.State, c.Code)
		p.Metadata["code"] = c.Code
	default:
		p.Detail = fmt.Sprintf("it is %s: begin another one", c.State)
	}
	return p
}

// end makes a consent one that is over, and forgets what it was to be completed with.
func end(c tokenbroker.Consent, state tokenbroker.ConsentState, code string) tokenbroker.Consent {
	c.State, c.Code, c.Ended = state, code, time.Now()
	c.Step, c.StepTime = tokenbroker.StepNone, time.Time{}
	if c.Grant != nil {
		c.Step, c.StepTime = tokenbroker.StepRevoking, c.Ended
	}
	c.State256, c.Verifier, c.Nonce, c.DeviceCode = nil, tokenbroker.Secret{}, "", tokenbroker.Secret{}
	return c
}

// finish ends a consent durably, and tells the log.
func (s *Service) finish(ctx context.Context, c tokenbroker.Consent, state tokenbroker.ConsentState, code string) (tokenbroker.Consent, error) {
	c, err := s.put(ctx, end(c, state, code))
	if err == nil {
		s.log.Info("consent ended", "consent", c.ID, "credential", c.Credential, "flow", string(c.Flow), "state", string(c.State), "code", c.Code)
	}
	return c, err
}

func (s *Service) audit(ctx context.Context, action string, c tokenbroker.Consent) error {
	if s.cfg.Audit == nil {
		return nil
	}
	return s.cfg.Audit(ctx, action, c)
}
