package server_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // a program that links it lets its clients ask for it
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/server"
)

func TestASnapshotOfEverySelectorComesFirst(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	want := map[string]bool{"example/none": true}
	selectors := []*tokenbrokerv1.Selector{sel("example/none")}
	for i := range 20 {
		name := fmt.Sprintf("example/c%d", i)
		b.AddClientCredentials(name, "files.read")
		b.Token(name)
		want[name] = false
		selectors = append(selectors, sel(name))
	}
	w := watch(t, b.Worker(), selectors...)
	got := map[string]bool{}
	for range selectors {
		e := w.next()
		if r := e.GetRemoved(); r != nil {
			got[r.GetSelector().GetCredential()] = true
		} else if u := e.GetUpdate(); u.GetToken() != nil && u.GetDefaultScopes() && u.GetDefaultSubject() && u.GetDefaultAudience() {
			got[u.GetSelector().GetCredential()] = false
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("got first %v, want %v", got, want)
	}
	if e := w.next(); e.GetSnapshotEnd() == nil {
		t.Errorf("got %T, want snapshot_end", e.GetEvent())
	}
}

func TestOrdersRiseOverReconnectsAndRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{Limits: server.Limits{ConnectionAge: 1000 * time.Hour}})
		defer b.Stop()
		b.AddRefreshToken("example/drive", "rotating", "files.read")
		var newest tokenbroker.Order
		for round := range 3 {
			w := watch(t, b.Worker(), sel("example/drive"))
			w.patience = 2 * time.Hour
			u := w.ready(0)
			if o := orderOf(u); o.Compare(newest) < 0 {
				t.Errorf("round %d: got %v after %v", round, o, newest)
			}
			u = w.ready(u.GetGeneration()) // an hour on, the refresh is pushed
			newest = orderOf(u)
			if round%2 == 0 {
				disable(t, b, "example/drive")
				if _, err := credentialsOf(b.Operator()).EnableCredential(brief(t), &tokenbrokerv1.EnableCredentialRequest{Credential: "example/drive"}); err != nil {
					t.Fatal(err)
				}
				newest = orderOf(w.ready(0))
			}
			w.cancel()
			if round == 1 {
				b.Restart()
			}
		}
	})
}

func TestAnUnknownSelectorComesAliveWhenItIsCreatedAndGoesWithItsCredential(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/stays", "files.read")
	w := watch(t, b.Worker(), sel("example/late"), sel("example/stays"))
	if r := w.next().GetRemoved(); r.GetSelector().GetCredential() != "example/late" {
		t.Errorf("got %v, want example/late removed", r)
	}
	w.ready(0)
	b.AddClientCredentials("example/late", "files.read")
	first := w.until(func(e *tokenbrokerv1.SubscribeResponse) bool { return e.GetUpdate().GetToken() != nil && late(e) }).GetUpdate()
	began := time.Now()
	if _, err := credentialsOf(b.Operator()).DeleteCredential(brief(t), &tokenbrokerv1.DeleteCredentialRequest{Credential: "example/late"}); err != nil {
		t.Fatal(err)
	}
	if r := w.until(isRemoved).GetRemoved(); r.GetSelector().GetCredential() != "example/late" || time.Since(began) > time.Second {
		t.Errorf("got %v after %v, want example/late removed within a second", r, time.Since(began))
	}
	b.AddClientCredentials("example/late", "files.read")
	second := w.until(func(e *tokenbrokerv1.SubscribeResponse) bool { return e.GetUpdate().GetToken() != nil && late(e) }).GetUpdate()
	if second.GetGeneration() <= first.GetGeneration() {
		t.Errorf("got generation %d of the re-created credential, want one after %d", second.GetGeneration(), first.GetGeneration())
	}
}

func late(e *tokenbrokerv1.SubscribeResponse) bool {
	return e.GetUpdate().GetSelector().GetCredential() == "example/late"
}

func TestAPolicyChangeTakesACredentialOffTheStreamAndGivesItBack(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/a", "files.read")
	b.AddClientCredentials("example/b", "files.read")
	w := watch(t, b.Worker(), sel("example/a"), sel("example/b"))
	w.ready(0)
	w.ready(0)
	narrow := `version: 1
rules:
  - name: operators
    identities: ["spiffe://brokertest.local/operator/*"]
    actions: ["credential.*", "oauth_client.*"]
    credentials: ["**"]
    oauth_clients: ["**"]
  - name: workers
    identities: ["spiffe://brokertest.local/worker/*"]
    actions: ["token.*"]
    credentials: ["example/b"]
    scopes: ["**"]
`
	began := time.Now()
	b.SetPolicy(narrow)
	r := w.until(isRemoved).GetRemoved()
	if took := time.Since(began); r.GetSelector().GetCredential() != "example/a" || r.GetReason() != tokenbrokerv1.RemovedReason_REMOVED_REASON_NOT_FOUND || took > time.Second {
		t.Errorf("got %v after %v, want example/a removed within a second of the reload", r, took)
	}
	disable(t, b, "example/b")
	if u := w.update(); u.GetSelector().GetCredential() != "example/b" {
		t.Errorf("got %v, want the other credential to stay", u)
	}
	b.SetPolicy(brokertest.DefaultPolicy)
	if u := w.ready(0); u.GetSelector().GetCredential() != "example/a" {
		t.Errorf("got %v, want example/a back", u)
	}
	b.SetPolicy("version: 1\nrules:\n  - name: nobody\n    identities: [\"spiffe://brokertest.local/x\"]\n    actions: [\"token.*\"]\n    credentials: [\"x\"]\n    scopes: [\"**\"]\n")
	w.until(isRemoved)
	w.until(isRemoved)
}

func TestAHeartbeatTellsSilenceFromDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{})
		defer b.Stop()
		b.AddClientCredentials("example/api", "files.read")
		w := watch(t, b.Worker(), sel("example/api"))
		w.ready(0)
		time.Sleep(5*time.Minute + time.Second)
		synctest.Wait()
		beats := 0
		for range len(w.events) {
			if h := (<-w.events).GetHeartbeat(); h != nil {
				beats++
			}
		}
		if beats != 10 {
			t.Errorf("got %d heartbeats in five minutes, want 10", beats)
		}
	})
}

func TestTwoSelectorsOfOneVariantGetOneUpdate(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	b.Token("example/api")
	w := watch(t, b.Worker(), sel("example/api"), sel("example/api", "files.read"))
	if u := w.next().GetUpdate(); u == nil || !u.GetDefaultScopes() {
		t.Errorf("got %v, want an update that answers both selectors", u)
	}
	if e := w.next(); e.GetSnapshotEnd() == nil {
		t.Errorf("got %T, want snapshot_end", e.GetEvent())
	}
	disable(t, b, "example/api")
	if u := w.update(); u.GetState() != tokenbrokerv1.CredentialState_CREDENTIAL_STATE_DISABLED {
		t.Errorf("got %v, want DISABLED, once", u)
	}
	if _, err := credentialsOf(b.Operator()).DeleteCredential(brief(t), &tokenbrokerv1.DeleteCredentialRequest{Credential: "example/api"}); err != nil {
		t.Fatal(err)
	}
	if first, second := w.next().GetRemoved(), w.next().GetRemoved(); first == nil || second == nil || len(first.GetSelector().GetScopes()) == len(second.GetSelector().GetScopes()) {
		t.Errorf("got %v and %v, want both selectors removed as they were asked for", first, second)
	}
}

func TestStreamsOfAnIdentityAreBounded(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Limits: server.Limits{StreamsPerIdentity: 3, Selectors: 2}})
	b.AddClientCredentials("example/api", "files.read")
	var open []*watcher
	for range 3 {
		w := watch(t, b.Worker(), sel("example/api"))
		w.ready(0)
		open = append(open, w)
	}
	f := wantFault(t, watch(t, b.Worker(), sel("example/api")).end(), codes.ResourceExhausted, "TOO_MANY")
	if f.Retry == 0 {
		t.Error("got no RetryInfo")
	}
	watch(t, b.Conn(worker("other")), sel("example/api")).ready(0)
	open[0].cancel()
	eventually(t, "a stream that ended makes room", func() bool {
		w := watch(t, b.Worker(), sel("example/api"))
		_, ok := <-w.events
		return ok
	})
	wantFault(t, watch(t, b.Worker(), selectors(3)...).end(), codes.InvalidArgument, "FIELD_VIOLATION")
}

func TestAStreamThatAsksForCompressionDoesNotSpoilTheOthers(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	b.Token("example/api")
	zipped := watchWith(t, b.Worker(), []grpc.CallOption{grpc.UseCompressor("gzip")}, sel("example/api"))
	plain := watch(t, b.Worker(), sel("example/api"))
	if z, p := zipped.ready(0), plain.ready(0); z.GetToken().GetAccessToken() != p.GetToken().GetAccessToken() {
		t.Error("got different tokens, want one")
	}
}

// bulky adds a credential whose updates are of 10 kB, so that a few fill what the transport may hold for a stream.
func bulky(t *testing.T, b *brokertest.Broker) (edit func(times int)) {
	t.Helper()
	b.AddClientCredentials("example/bulky", many(40, strings.Repeat("s", 120))...)
	b.Token("example/bulky")
	creds := credentialsOf(b.Operator())
	return func(times int) {
		for range times {
			disable(t, b, "example/bulky")
			if _, err := creds.EnableCredential(brief(t), &tokenbrokerv1.EnableCredentialRequest{Credential: "example/bulky"}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// unread subscribes and reads nothing.
func unread(t *testing.T, b *brokertest.Broker, name string) grpc.ServerStreamingClient[tokenbrokerv1.SubscribeResponse] {
	t.Helper()
	conn := b.Conn(worker("slow"), grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(64<<10))
	stream, err := tokensOf(conn).Subscribe(t.Context(), &tokenbrokerv1.SubscribeRequest{Selectors: []*tokenbrokerv1.Selector{sel(name)}})
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func subscribers(t *testing.T, b *brokertest.Broker, name string) int32 {
	t.Helper()
	return credential(t, b, name).GetStatus().GetSubscriberCount()
}

func TestS13ABlockedReaderIsCutAndHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{Limits: server.Limits{SlowReader: 2 * time.Second}})
		defer b.Stop()
		edit := bulky(t, b)
		stream := unread(t, b, "example/bulky")
		w := watch(t, b.Conn(worker("other")), sel("example/bulky"))
		defer w.cancel()
		w.ready(0)
		for subscribers(t, b, "example/bulky") < 2 {
			time.Sleep(time.Millisecond)
		}
		blocked := time.Now()
		edit(20)
		if took := time.Since(blocked); took > time.Second {
			t.Errorf("publishing took %v while a reader was blocked", took)
		}
		for n := 0; n < 39; {
			if w.next().GetUpdate() != nil {
				n++
			}
			if len(w.events) == 0 {
				break
			}
		}
		if late := time.Since(blocked); late > time.Second {
			t.Errorf("the other reader was %v late", late)
		}
		if n := subscribers(t, b, "example/bulky"); n != 2 {
			t.Errorf("got %d subscribers before the time is over, want 2", n)
		}
		time.Sleep(time.Until(blocked.Add(2*time.Second + 100*time.Millisecond)))
		synctest.Wait()
		if n := subscribers(t, b, "example/bulky"); n != 1 {
			t.Errorf("got %d subscribers afterwards, want the slow one cut", n)
		}
		var err error
		for err == nil {
			_, err = stream.Recv()
		}
		if c := status.Code(err); c != codes.Unavailable {
			t.Errorf("the slow reader got %v, want its connection gone", err)
		}
	})
}

// gRPC can't end a stream whose last message still waits, so what is cut is the connection, and with it all that runs there.
func TestS13TheStreamsBesideABlockedOneEndWithItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{Limits: server.Limits{SlowReader: 2 * time.Second}})
		defer b.Stop()
		b.AddClientCredentials("example/api", "files.read")
		edit := bulky(t, b)
		conn := b.Conn(worker("slow"), grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(1<<20))
		if _, err := tokensOf(conn).Subscribe(t.Context(), &tokenbrokerv1.SubscribeRequest{Selectors: []*tokenbrokerv1.Selector{sel("example/bulky")}}); err != nil {
			t.Fatal(err)
		}
		beside, apart := watch(t, conn, sel("example/api")), watch(t, b.Worker(), sel("example/api"))
		defer apart.cancel()
		beside.ready(0)
		apart.ready(0)
		for subscribers(t, b, "example/bulky") < 1 {
			time.Sleep(time.Millisecond)
		}
		edit(20)
		disable(t, b, "example/api")
		beside.next() // as long as the connection is there it is served
		apart.next()
		time.Sleep(3 * time.Second)
		if err := beside.end(); status.Code(err) != codes.Unavailable {
			t.Errorf("beside the blocked stream: got %v, want the connection gone", err)
		}
		if n := subscribers(t, b, "example/api"); n != 1 {
			t.Errorf("got %d subscribers of the other credential, want the one on another connection", n)
		}
	})
}

func TestTheNewestWinsForASlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{Limits: server.Limits{SlowReader: time.Hour}})
		defer b.Stop()
		edit := bulky(t, b)
		stream := unread(t, b, "example/bulky")
		for subscribers(t, b, "example/bulky") < 1 {
			time.Sleep(time.Millisecond)
		}
		const edits = 50
		edit(edits)
		w := watch(t, b.Worker(), sel("example/bulky"))
		newest := orderOf(w.update())
		w.cancel()
		for read := 0; ; read++ {
			e, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if u := e.GetUpdate(); u != nil && orderOf(u) == newest {
				if read > edits {
					t.Errorf("read %d updates of %d, want what the transport held already and the newest", read, 2*edits)
				}
				return
			}
		}
	})
}
