package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// silence is how long a stream may say nothing: heartbeats come every 30 s.
const silence = 90 * time.Second

func (c *cli) subscribeCommand() *cobra.Command {
	sub := &subscription{known: map[string]state{}}
	var force bool
	cmd := &cobra.Command{
		Use: "subscribe CREDENTIAL…", Short: "Print each change of credentials as it comes", Args: some,
		ValidArgsFunction: c.credentialNames(-1),
		Long: `Prints a line for the present state of each credential, and then for each change, until Ctrl-C or --count events. When the
connection is lost it says so on standard error and connects again; nothing is printed twice. It gives up only if the broker
can't be reached for --timeout at the start, or does not accept the request at all. --scope, --subject and --audience hold for
each credential that is named.

The token is left out, also of -o json, which prints one message of the stream in a line: --show-token prints it there.`,
		Example: `  tokenctl subscribe example/reports example/crm
  tokenctl subscribe example/reports --scope reports.read
  tokenctl subscribe example/reports --count 1 -o json`,
	}
	cmd.RunE = c.do(func(ctx context.Context, _ *cobra.Command, args []string) error {
		if sub.showToken && c.format != "json" {
			return usagef("--show-token goes with -o json")
		}
		if err := c.showable(sub.showToken, force, "without --show-token it"); err != nil {
			return err
		}
		s, err := c.connect()
		if err != nil {
			return err
		}
		defer s.Close()
		slices.Sort(args)
		sub.session, sub.names = s, slices.Compact(args)
		return sub.run(ctx)
	})
	sub.like.addSelection(cmd)
	cmd.Flags().IntVar(&sub.left, "count", 0, "end after so many events (default: never)")
	cmd.Flags().BoolVar(&sub.showToken, "show-token", false, "leave the token in, with -o json")
	cmd.Flags().BoolVar(&force, "force", false, "print tokens even if standard output is a terminal")
	c.outputs(cmd, "table", "json")
	return cmd
}

// some wants at least one credential.
func some(cmd *cobra.Command, args []string) error {
	return takes("CREDENTIAL")(cmd, args[:min(1, len(args))])
}

// subscription follows credentials over connections. It uses the stream itself, not client.Subscribe: one stream serves all credentials
// in one order, JSON is the protocol's own, and a lost connection can be told to whoever watches.
type subscription struct {
	*session
	names     []string
	like      variant
	left      int // events to print yet; 0 = no end
	showToken bool

	known map[string]state // credential → what was printed last
	live  bool             // the stream has answered; from then on a lost connection is made again for ever
	told  string           // trouble that was told last

	headed bool // the heading was printed
}

// state is what tells two events of a credential apart.
type state struct {
	generation, revision uint64
	removed              tokenbrokerv1.RemovedReason
}

// errEnough ends a subscription in order.
var errEnough = errors.New("all events asked for were printed")

// run follows the streams one after another.
func (s *subscription) run(ctx context.Context) error {
	patience := time.Now().Add(s.timeout)
	for failures := 0; ; failures++ {
		live := s.live
		s.live = false
		err := s.follow(ctx)
		if errors.Is(err, errEnough) {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if s.live {
			failures = 0
		}
		s.live = s.live || live
		if err := s.trouble(err, time.Now().After(patience)); err != nil {
			return err
		}
		if err := wait(ctx, delay(failures)); err != nil {
			return err
		}
	}
}

// trouble decides what a stream's end means: an error that ends the command, or a note and another try.
func (s *subscription) trouble(err error, late bool) error {
	f, ok := errors.AsType[*failure](err)
	if !ok || f.exit == exitUsage || !s.live && (f.exit != exitLater || late) {
		return err
	}
	if text := f.Error(); text != s.told {
		s.told = text
		_, err = fmt.Fprintf(s.errs, "tokenctl: %s; connecting again\n", clean(text))
		return err
	}
	return nil
}

// follow reads one stream to its end. Its context has the limit of a call until the first message, and then that of a silence.
func (s *subscription) follow(ctx context.Context) error {
	bound, cancel := context.WithCancel(ctx)
	defer cancel()
	watchdog := time.AfterFunc(s.timeout, cancel)
	defer watchdog.Stop()
	req := &tokenbrokerv1.SubscribeRequest{}
	for _, name := range s.names {
		req.Selectors = append(req.Selectors, &tokenbrokerv1.Selector{Credential: name, Scopes: s.like.scopes, Subject: s.like.subject, Audience: s.like.audience})
	}
	stream, err := s.tokens.Subscribe(bound, req)
	for err == nil {
		var m *tokenbrokerv1.SubscribeResponse
		if m, err = stream.Recv(); err != nil {
			break
		}
		watchdog.Reset(silence)
		if err := s.heading(); err != nil {
			return err
		}
		s.alive()
		if err := s.take(m); err != nil {
			return err
		}
	}
	if bound.Err() != nil && ctx.Err() == nil {
		return &failure{exit: exitLater, what: "the broker says nothing", err: err}
	}
	return s.explain(ctx, err, workers(""))
}

// alive notes that the stream works.
func (s *subscription) alive() {
	if s.live = true; s.told != "" {
		_, _ = fmt.Fprintln(s.errs, "tokenctl: connected again")
		s.told = ""
	}
}

// take prints a message if it says something new.
func (s *subscription) take(m *tokenbrokerv1.SubscribeResponse) error {
	var name string
	var now state
	switch e := m.GetEvent().(type) {
	case *tokenbrokerv1.SubscribeResponse_Update:
		name = e.Update.GetSelector().GetCredential()
		now = state{generation: e.Update.GetGeneration(), revision: e.Update.GetRevision()}
	case *tokenbrokerv1.SubscribeResponse_Removed:
		name = e.Removed.GetSelector().GetCredential()
		now = s.known[name]
		now.removed = e.Removed.GetReason()
	default:
		return nil
	}
	before, known := s.known[name]
	if known && now.removed == before.removed &&
		cmp.Or(cmp.Compare(now.generation, before.generation), cmp.Compare(now.revision, before.revision)) <= 0 {
		return nil // known from an earlier connection
	}
	s.known[name] = now
	if err := s.print(name, m); err != nil {
		return err
	}
	if s.left--; s.left == 0 {
		return errEnough
	}
	if now.removed == tokenbrokerv1.RemovedReason_REMOVED_REASON_TOO_MANY {
		return &failure{exit: exitLater, what: "credential " + name + " has too many variants in use"}
	}
	return nil
}

// heading prints the heading once, when there is something under it.
func (s *subscription) heading() error {
	if s.headed || s.format == "json" || s.noHeaders {
		return nil
	}
	s.headed = true
	return s.line("TIME", "CREDENTIAL", "GENERATION", "STATE", "EXPIRES")
}

// line prints columns whose width is known before the rows are.
func (s *subscription) line(time, credential, generation, state, expires string) error {
	width := len("CREDENTIAL")
	for _, name := range s.names {
		width = max(width, len(name))
	}
	_, err := fmt.Fprintf(s.out, "%-20s  %-*s  %-10s  %-15s  %s\n", time, width, clean(credential), generation, state, expires)
	return err
}

func (s *subscription) print(name string, m *tokenbrokerv1.SubscribeResponse) error {
	if s.format == "json" {
		return s.message(s.out, m)
	}
	now := time.Now()
	if r := m.GetRemoved(); r != nil {
		return s.line(stamp(now), name, "-", enum(r.GetReason().String(), "REMOVED_REASON_"), "-")
	}
	u := m.GetUpdate()
	return s.line(stamp(now), name, fmt.Sprint(u.GetGeneration()), stateWord(u.GetState()), relative(u.GetToken().GetExpireTime(), now))
}

// message prints a message without its token, unless that was asked for.
func (s *subscription) message(w io.Writer, m *tokenbrokerv1.SubscribeResponse) error {
	if t := m.GetUpdate().GetToken(); t != nil && !s.showToken {
		m = proto.CloneOf(m)
		m.GetUpdate().GetToken().AccessToken = ""
	}
	return jsonLine(w, m)
}

// jsonLine prints a message in one line.
func jsonLine(w io.Writer, m proto.Message) error {
	data, err := protojson.Marshal(m) //nolint:forbidigo // no token is left in it that was not asked for
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := json.Compact(&b, cleanJSON(data)); err != nil { // protojson varies its spaces on purpose
		return err
	}
	b.WriteByte('\n')
	_, err = w.Write(b.Bytes())
	return err
}

// delay is how long to wait after n failures in a row: full jitter, up to 100 ms doubling to 10 s.
func delay(n int) time.Duration {
	return rand.N(min(10*time.Second, 100*time.Millisecond<<min(n, 7)))
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
