package client_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/client"
	"github.com/tokenbroker/tokenbroker/server"
)

// diary keeps what somebody was told.
type diary struct {
	mu  sync.Mutex
	got []client.Change
}

func (l *diary) add(c client.Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got = append(l.got, c)
}

func (l *diary) all() []client.Change {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.got)
}

// tokens are the generations that somebody was told of, in order.
func (l *diary) tokens() []tokenbroker.Generation {
	var got []tokenbroker.Generation
	for _, c := range l.all() {
		if c.Token != nil {
			got = append(got, c.Token.Generation)
		}
	}
	return got
}

func TestAJobThatAsksOnceCostsNoStream(t *testing.T) {
	tapped(t, brokertest.Config{}, func(t *testing.T, b *brokertest.Broker, c *client.Client, p *tap) {
		b.AddClientCredentials("example/api", "files.read")
		if _, err := c.Token(t.Context(), "example/api"); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		if gets, opened, _ := p.counts(); gets != 1 || opened != 0 {
			t.Errorf("got %d calls and %d streams, want one call", gets, opened)
		}
	})
}

func TestAStreamBringsWhatIsFreshToAJobThatStays(t *testing.T) {
	tapped(t, brokertest.Config{}, func(t *testing.T, b *brokertest.Broker, c *client.Client, p *tap) {
		b.AddClientCredentials("example/api", "files.read")
		seen := map[tokenbroker.Generation]bool{}
		for range 200 {
			tok, err := c.Token(t.Context(), "example/api")
			if err != nil || !b.Sandbox.Valid(tok.AccessToken.Reveal()) {
				t.Fatalf("got generation %d, %v, want a token that is valid", tok.Generation, err)
			}
			seen[tok.Generation] = true
			time.Sleep(time.Minute)
		}
		if gets, opened, _ := p.counts(); gets != 1 || opened == 0 || len(seen) < 4 {
			t.Errorf("got %d tokens in 200 minutes by %d calls and %d streams, want at least 4 by one call and a stream", len(seen), gets, opened)
		}
	})
}

func TestASlotThatNobodyReadsLeavesTheStream(t *testing.T) {
	tapped(t, brokertest.Config{}, func(t *testing.T, b *brokertest.Broker, c *client.Client, p *tap) {
		b.AddClientCredentials("example/api", "files.read")
		b.AddClientCredentials("example/once", "files.read")
		if _, err := c.Token(t.Context(), "example/once"); err != nil {
			t.Fatal(err)
		}
		read := func(minutes int) {
			for range minutes {
				if _, err := c.Token(t.Context(), "example/api"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
			}
		}
		read(100)
		if got := p.now(); !slices.Equal(got, []int{2}) {
			t.Errorf("after less than two lives: got streams of %d selectors, want one of both", got)
		}
		read(100)
		if got := p.now(); !slices.Equal(got, []int{1}) {
			t.Errorf("after more than two lives: got streams of %d selectors, want one of the one that is read", got)
		}
		time.Sleep(4 * time.Hour)
		if got := p.now(); len(got) != 0 {
			t.Errorf("when nobody reads: got streams of %d selectors, want none", got)
		}
		if tok, err := c.Token(t.Context(), "example/once"); err != nil || !b.Sandbox.Valid(tok.AccessToken.Reveal()) {
			t.Errorf("in use again: got %v, want a token", err)
		}
		time.Sleep(time.Second)
		if got := p.now(); !slices.Equal(got, []int{1}) {
			t.Errorf("in use again: got streams of %d selectors, want one of it", got)
		}
	})
}

func TestWhatIsForgottenLeavesTheStreamAndTheMemory(t *testing.T) {
	tapped(t, brokertest.Config{}, func(t *testing.T, b *brokertest.Broker, c *client.Client, p *tap) {
		var told diary
		for _, name := range []string{"example/api", "example/watched", "example/other"} {
			b.AddClientCredentials(name, "files.read")
			if _, err := c.Token(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		stop := c.OnChange("example/watched", told.add)
		time.Sleep(time.Second)
		for _, name := range []string{"example/api", "example/watched", "example/none"} {
			c.Forget(name)
		}
		time.Sleep(2 * time.Minute)
		if got := p.now(); !slices.Equal(got, []int{2}) {
			t.Errorf("got streams of %d selectors, want one of the one that is watched and the one that is not forgotten", got)
		}
		before, _, _ := p.counts()
		if _, err := c.Token(t.Context(), "example/watched"); err != nil {
			t.Errorf("what is watched: %v", err)
		}
		if after, _, _ := p.counts(); after != before {
			t.Error("what is watched was forgotten")
		}
		if tok, err := c.Token(t.Context(), "example/api"); err != nil || !b.Sandbox.Valid(tok.AccessToken.Reveal()) {
			t.Errorf("what was forgotten: got %v, want a token", err)
		}
		if after, _, _ := p.counts(); after != before+1 {
			t.Errorf("got %d calls, want one for what was forgotten", after-before)
		}
		stop()
	})
}

func TestThreeHundredNamesShareTwoStreams(t *testing.T) {
	tapped(t, brokertest.Config{}, func(t *testing.T, b *brokertest.Broker, c *client.Client, p *tap) {
		var told diary
		name := func(i int) string { return fmt.Sprintf("example/api-%d", i) }
		for i := range 300 {
			b.AddClientCredentials(name(i), "files.read")
			c.OnChange(name(i), told.add)
		}
		time.Sleep(time.Minute)
		if got := p.now(); !slices.Equal(got, []int{44, 256}) {
			t.Errorf("got streams of %d selectors, want 256 and the rest", got)
		}
		names := map[string]bool{}
		for _, got := range told.all() {
			if got.Token != nil {
				names[got.Credential] = true
			}
		}
		if len(names) != 300 {
			t.Errorf("got tokens of %d names, want 300", len(names))
		}
		for i := range 300 {
			if _, err := c.Token(t.Context(), name(i)); err != nil {
				t.Fatal(err)
			}
		}
		if gets, _, _ := p.counts(); gets != 0 {
			t.Errorf("got %d calls, want none: the streams have brought all", gets)
		}
	})
}

func TestManySubscribersOfASlotCostOneSelector(t *testing.T) {
	tapped(t, brokertest.Config{}, func(t *testing.T, b *brokertest.Broker, c *client.Client, p *tap) {
		b.AddClientCredentials("example/api", "files.read")
		logs := make([]diary, 1000)
		for i := range logs {
			c.OnChange("example/api", logs[i].add)
		}
		time.Sleep(2 * time.Hour)
		if got := p.now(); !slices.Equal(got, []int{1}) {
			t.Errorf("got streams of %d selectors, want one of one", got)
		}
		want := logs[0].tokens()
		if len(want) < 2 {
			t.Errorf("got %d tokens in two hours, want at least 2", len(want))
		}
		for i := range logs {
			if got := logs[i].tokens(); !slices.Equal(got, want) {
				t.Errorf("subscriber %d: got generations %d, want %d as the first", i, got, want)
			}
		}
	})
}

func TestAnotherSetOpensTheNextStreamBeforeItClosesTheLast(t *testing.T) {
	tapped(t, brokertest.Config{}, func(t *testing.T, b *brokertest.Broker, c *client.Client, p *tap) {
		for i := range 20 {
			b.AddClientCredentials(fmt.Sprintf("example/api-%d", i), "files.read")
			if _, err := c.Token(t.Context(), fmt.Sprintf("example/api-%d", i)); err != nil {
				t.Fatal(err)
			}
			if i%5 == 4 {
				time.Sleep(time.Second)
			}
		}
		_, opened, gap := p.counts()
		if got := p.now(); !slices.Equal(got, []int{20}) || opened != 4 || gap {
			t.Errorf("got streams of %d selectors after %d were opened, a time without %t, want one of 20, 4 and none", got, opened, gap)
		}
	})
}

func TestABrokerThatTakesFewerSelectorsGetsMoreStreams(t *testing.T) {
	tapped(t, brokertest.Config{Limits: server.Limits{Selectors: 3}}, func(t *testing.T, b *brokertest.Broker, c *client.Client, p *tap) {
		var told diary
		for i := range 8 {
			b.AddClientCredentials(fmt.Sprintf("example/api-%d", i), "files.read")
			c.OnChange(fmt.Sprintf("example/api-%d", i), told.add)
		}
		time.Sleep(time.Minute)
		total := 0
		for _, n := range p.now() {
			total += n
		}
		if got := told.tokens(); len(got) != 8 || total != 8 {
			t.Errorf("got %d tokens by streams of %d selectors, want 8 of 8", len(got), p.now())
		}
	})
}

func TestOneMalformedNameHoldsUpNoOther(t *testing.T) {
	tapped(t, brokertest.Config{}, func(t *testing.T, b *brokertest.Broker, c *client.Client, _ *tap) {
		b.AddClientCredentials("example/api", "files.read")
		var good, bad diary
		c.OnChange("Not A Name", bad.add)
		c.OnChange("example/api", good.add)
		time.Sleep(time.Second)
		if got := bad.all(); len(got) != 1 || !errors.Is(got[0].Err, tokenbroker.ErrInvalidArgument) {
			t.Errorf("the malformed: got %d changes, want one with ErrInvalidArgument", len(got))
		}
		if len(good.tokens()) != 1 {
			t.Errorf("the other: got %d tokens, want one", len(good.tokens()))
		}
	})
}

func TestAnUpdateAnswersWhateverItIsOf(t *testing.T) {
	tapped(t, brokertest.Config{}, func(t *testing.T, b *brokertest.Broker, c *client.Client, p *tap) {
		b.AddClientCredentials("example/api", "files.read", "files.write")
		asks := map[string][]client.Option{"own": nil, "own, named": {client.Scopes("files.write", "files.read")}, "narrower": {client.Scopes("files.read")}}
		told := map[string]*diary{}
		for name, opts := range asks {
			told[name] = &diary{}
			c.OnChange("example/api", told[name].add, opts...)
		}
		time.Sleep(2 * time.Hour)
		if got := p.now(); !slices.Equal(got, []int{3}) {
			t.Errorf("got streams of %d selectors, want one of 3", got)
		}
		for name, want := range map[string]string{"own": "files.read files.write", "own, named": "files.read files.write", "narrower": "files.read"} {
			all := told[name].all()
			if len(told[name].tokens()) < 2 {
				t.Errorf("%s: got %d tokens in two hours, want at least 2", name, len(told[name].tokens()))
				continue
			}
			last := all[len(all)-1]
			if got := strings.Join(last.Scopes, " "); got != want || strings.Join(last.Token.Scopes, " ") != want {
				t.Errorf("%s: got scopes %q, the token's %q, want %q", name, got, last.Token.Scopes, want)
			}
			if last.RefreshTime.IsZero() {
				t.Errorf("%s: want to be told when the next comes", name)
			}
		}
		gets, _, _ := p.counts()
		for name, opts := range asks {
			if _, err := c.Token(t.Context(), "example/api", opts...); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if again, _, _ := p.counts(); again != gets {
			t.Errorf("got %d calls, want none: the stream has brought all", again-gets)
		}
	})
}

// getOnly lets workers get tokens and not subscribe.
var getOnly = strings.Replace(brokertest.DefaultPolicy, `actions: ["token.*"]`, `actions: ["token.get", "token.report"]`, 1)

func TestABrokerThatAllowsNoStreamIsAskedForEachToken(t *testing.T) {
	tapped(t, brokertest.Config{Policy: getOnly}, func(t *testing.T, b *brokertest.Broker, c *client.Client, p *tap) {
		b.AddClientCredentials("example/api", "files.read")
		var told diary
		first, err := c.Token(t.Context(), "example/api")
		if err != nil {
			t.Fatal(err)
		}
		c.OnChange("example/api", told.add)
		for range 200 {
			tok, err := c.Token(t.Context(), "example/api")
			if err != nil || tok.Generation < first.Generation || !b.Sandbox.Valid(tok.AccessToken.Reveal()) {
				t.Fatalf("got generation %d, %v, want a token that is valid, and none from before", tok.Generation, err)
			}
			first = tok
			time.Sleep(time.Minute)
		}
		gets, _, _ := p.counts()
		if n := len(told.tokens()); n < 4 || gets > 5*n {
			t.Errorf("got %d tokens in 200 minutes by %d calls, want at least 4, and few calls for each", n, gets)
		}
		for _, got := range told.all() {
			if got.Err != nil {
				t.Errorf("got %v, want tokens only", got.Err)
			}
		}
	})
}

func TestAPolicyTakesATokenBackAndGivesItAgain(t *testing.T) {
	tapped(t, brokertest.Config{WatchEvery: 250 * time.Millisecond}, func(t *testing.T, b *brokertest.Broker, c *client.Client, _ *tap) {
		b.AddClientCredentials("example/api", "files.read")
		b.AddClientCredentials("example/other", "files.read")
		var told diary
		c.OnChange("example/api", told.add)
		c.OnChange("example/other", func(client.Change) {})
		time.Sleep(10 * time.Second)
		before, err := c.Token(t.Context(), "example/api")
		if err != nil {
			t.Fatal(err)
		}
		b.SetPolicy(strings.Replace(brokertest.DefaultPolicy, `credentials: ["example/*"]`, `credentials: ["example/other"]`, 1))
		time.Sleep(2 * time.Second)
		if tok, err := c.Token(t.Context(), "example/api"); !errors.Is(err, tokenbroker.ErrNotFound) {
			t.Errorf("got generation %d, %v, want ErrNotFound", tok.Generation, err)
		}
		if got := told.all(); !errors.Is(got[len(got)-1].Err, tokenbroker.ErrNotFound) {
			t.Errorf("got %v, want to be told of ErrNotFound", got[len(got)-1].Err)
		}
		b.SetPolicy(brokertest.DefaultPolicy)
		time.Sleep(2 * time.Second)
		if tok, err := c.Token(t.Context(), "example/api"); err != nil || tok.Generation < before.Generation {
			t.Errorf("got generation %d, %v, want a token again", tok.Generation, err)
		}
		if got := told.all(); got[len(got)-1].Token == nil {
			t.Errorf("got %v, want to be told of a token", got[len(got)-1].Err)
		}
	})
}

func TestADisabledCredentialIsTakenBackAtOnce(t *testing.T) {
	tapped(t, brokertest.Config{}, func(t *testing.T, b *brokertest.Broker, c *client.Client, _ *tap) {
		b.AddClientCredentials("example/api", "files.read")
		if _, err := c.Token(t.Context(), "example/api"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		for _, disabled := range []bool{true, false} {
			if _, err := b.Daemon.Broker().SetDisabled(t.Context(), "example/api", disabled); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
			if _, err := c.Token(t.Context(), "example/api"); errors.Is(err, tokenbroker.ErrDisabled) != disabled || !disabled && err != nil {
				t.Errorf("disabled %t: got %v", disabled, err)
			}
		}
		b.Shutdown()
		synctest.Wait()
	})
}
