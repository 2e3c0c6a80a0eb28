package mtls

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

const (
	workloadTry   = 5 * time.Second        // for one question to the Workload API
	workloadPause = 250 * time.Millisecond // between the first questions; it doubles
	workloadMost  = 5 * time.Second        // between questions
)

// Workload says where a [Source] has its certificate from, if not from files.
type Workload struct {
	Socket  string      // of the SPIFFE Workload API, e.g. unix:///run/spire/agent.sock; required
	Files   Files       // bundles from files, without Cert and Key: they go before those of the API. CA vouches for DNS names
	Apart   bool        // trust the bundles of Files alone, none of the API's: for a listener with a CA of its own
	Waiting func(error) // told once, if the API does not answer at first; nil = nobody is
}

// workload is the Workload API, and what it said.
type workload struct {
	Workload
	news   chan struct{}                           // holds a value when it said something
	said   atomic.Pointer[workloadapi.X509Context] // the last that could be read
	broken atomic.Pointer[error]                   // why nothing comes now; nil = it does
}

// Check looks at the address and at the files, and asks nobody.
func (w Workload) Check() error {
	if err := workloadapi.ValidateAddress(w.Socket); err != nil {
		return fmt.Errorf("workload API %s: %w: give an address such as unix:///run/spire/agent.sock", quote(w.Socket), err)
	}
	if w.Files.Cert != "" || w.Files.Key != "" {
		return errors.New("the certificate comes from the workload API or from files: set one of them")
	}
	c, err := w.Files.read(false)
	if err != nil {
		return err
	}
	_, _, err = w.Files.bundles(c)
	return err
}

// OpenWorkload waits until the Workload API gives a certificate that is of use, or ctx ends: an agent may start after us, and a
// registration may come after that. [Source.Watch] takes up what the API says later; while it is away, what was in use stays in use.
func OpenWorkload(ctx context.Context, w Workload) (*Source, error) {
	if err := w.Check(); err != nil {
		return nil, err
	}
	s := &Source{files: w.Files, api: &workload{Workload: w, news: make(chan struct{}, 1)}}
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(w.Socket))
	if err != nil {
		return nil, fmt.Errorf("workload API %s: %w", quote(w.Socket), err)
	}
	defer func() { _ = client.Close() }()
	return s, s.first(ctx, client)
}

// first asks until there is something of use.
func (s *Source) first(ctx context.Context, client *workloadapi.Client) error {
	for pause := workloadPause; ; pause = min(2*pause, workloadMost) {
		err := s.ask(ctx, client)
		if err == nil {
			return nil
		}
		if pause == workloadPause && s.api.Waiting != nil {
			s.api.Waiting(err)
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return fmt.Errorf("workload API %s gave no certificate in time: %w: see that the agent runs and has an entry for this process",
				quote(s.api.Socket), err)
		}
	}
}

func (s *Source) ask(ctx context.Context, client *workloadapi.Client) error {
	ctx, cancel := context.WithTimeout(ctx, workloadTry)
	defer cancel()
	x, err := client.FetchX509Context(ctx)
	if err != nil {
		return err
	}
	s.api.said.Store(x)
	_, err = s.Reload()
	return err
}

// follow listens to the API until ctx ends. The client gives up by itself where it takes an answer for final, Canceled say, which an agent
// that goes down gives, too; then it is asked anew, as our certificate will end whatever it said.
func (w *workload) follow(ctx context.Context) {
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(w.Socket))
	if err != nil {
		w.OnX509ContextWatchError(err)
		return
	}
	defer func() { _ = client.Close() }()
	for pause := workloadPause; ; pause = min(2*pause, workloadMost) {
		before := w.said.Load()
		_ = client.WatchX509Context(ctx, w) // it told us why it ends
		if w.said.Load() != before {
			pause = workloadPause
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
	}
}

// OnX509ContextUpdate implements workloadapi.X509ContextWatcher.
func (w *workload) OnX509ContextUpdate(x *workloadapi.X509Context) {
	w.said.Store(x)
	w.broken.Store(nil)
	w.tell()
}

// OnX509ContextWatchError implements workloadapi.X509ContextWatcher.
func (w *workload) OnX509ContextWatchError(err error) {
	err = fmt.Errorf("workload API %s: %w", quote(w.Socket), err)
	w.broken.Store(&err)
	w.tell()
}

func (w *workload) tell() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

func (w *workload) trouble() error {
	if p := w.broken.Load(); p != nil {
		return *p
	}
	return nil
}

// load joins what the API said last with the files. If they are what old was made of, it returns old.
func (w *workload) load(old *material, files Files) (*material, error) {
	c, err := files.read(false)
	if err != nil {
		return nil, err
	}
	said := w.said.Load()
	svid := said.DefaultSVID()
	domains := map[string][]*x509.Certificate{}
	if !w.Apart {
		for _, b := range said.Bundles.Bundles() {
			domains[b.TrustDomain().Name()] = b.X509Authorities()
		}
		if own := svid.ID.TrustDomain().Name(); len(domains[own]) == 0 && files.Domains[own] == "" {
			return nil, fmt.Errorf("workload API %s gave no bundle of our own trust domain %s", quote(w.Socket), own)
		}
	}
	sum := digest(slices.Concat([][]byte{sum(c.digest())}, raw(svid.Certificates), rawBundles(domains))...)
	if old != nil && old.digest == sum {
		return old, nil
	}
	if err := w.sound(svid.Certificates[0], domains); err != nil {
		return nil, err
	}
	ca, more, err := files.bundles(c)
	if err != nil {
		return nil, err
	}
	maps.Copy(domains, more)
	trust, err := newTrust(svid.ID.TrustDomain().Name(), ca, domains)
	if err != nil {
		return nil, err
	}
	api := "workload API " + quote(w.Socket)
	return &material{digest: sum, chain: svid.Certificates, trust: trust, from: api, vital: cmp.Or(files.vital(trust.own), api),
		cert: tls.Certificate{Certificate: raw(svid.Certificates), PrivateKey: svid.PrivateKey, Leaf: svid.Certificates[0]}}, nil
}

// sound holds what the API said to the rules for files.
func (w *workload) sound(leaf *x509.Certificate, domains map[string][]*x509.Certificate) error {
	if _, err := Identity(leaf, false); err != nil {
		return fmt.Errorf("workload API %s: our %w", quote(w.Socket), err)
	}
	if w.Files.Listens {
		if err := fitsListener(leaf); err != nil {
			return fmt.Errorf("workload API %s: our %w", quote(w.Socket), err)
		}
	}
	for _, domain := range slices.Sorted(maps.Keys(domains)) {
		if slices.ContainsFunc(domains[domain], func(c *x509.Certificate) bool { return !c.IsCA }) {
			return fmt.Errorf("workload API %s: the bundle of %s holds a certificate that is not of a CA", quote(w.Socket), domain)
		}
	}
	return nil
}

func sum(s [sha256.Size]byte) []byte { return s[:] }

func raw(certs []*x509.Certificate) [][]byte {
	var all [][]byte
	for _, c := range certs {
		all = append(all, c.Raw)
	}
	return all
}

func rawBundles(domains map[string][]*x509.Certificate) [][]byte {
	var all [][]byte
	for _, domain := range slices.Sorted(maps.Keys(domains)) {
		all = append(append(all, []byte(domain)), raw(domains[domain])...)
	}
	return all
}
