package client_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/client"
)

// inTime runs a test in fake time, with a client whose token was had since and then revoked.
func inTime(t *testing.T, since time.Duration, run func(*testing.T, *brokertest.Broker, *client.Client, *api)) {
	t.Helper()
	inBubble(t, func(t *testing.T, b *brokertest.Broker, c *client.Client) {
		b.AddClientCredentials("example/api", "files.read")
		tok, err := c.Token(t.Context(), "example/api")
		if err != nil {
			t.Fatal(err)
		}
		b.Sandbox.RevokeToken(tok.AccessToken.Reveal())
		time.Sleep(since)
		run(t, b, c, &api{answer: takes(b)})
	})
}

// expect sends a request, and says what has to come of it and when.
func expect(t *testing.T, rt http.RoundTripper, status int, least, most time.Duration) {
	t.Helper()
	began := time.Now()
	got, err := do(t, rt, home, nil)
	if took := time.Since(began); err != nil || got != status || took < least || took > most {
		t.Errorf("got %d, %v after %v, want %d after %v to %v", got, err, took, status, least, most)
	}
}

func TestARefusedRequestWaitsForANewerTokenOnceAndNotForLong(t *testing.T) {
	inTime(t, 0, func(t *testing.T, _ *brokertest.Broker, c *client.Client, a *api) {
		rt := c.Transport("example/api", client.Base(a))
		expect(t, rt, 401, 5*time.Second, 6*time.Second) // the floor is 30 s
		expect(t, rt, 401, 0, 10*time.Millisecond)       // it is known by now
		time.Sleep(30 * time.Second)
		expect(t, rt, 200, 0, time.Second)
	})
}

func TestAReportIsMadeAgainWhenTheBrokerSaidThatItHelps(t *testing.T) {
	inTime(t, 27*time.Second, func(t *testing.T, _ *brokertest.Broker, c *client.Client, a *api) {
		expect(t, c.Transport("example/api", client.Base(a)), 200, 2*time.Second, 4*time.Second)
	})
}

func TestTheWaitIsAnOption(t *testing.T) {
	inTime(t, 0, func(t *testing.T, _ *brokertest.Broker, c *client.Client, a *api) {
		expect(t, c.Transport("example/api", client.Base(a), client.RetryWait(0)), 401, 0, 10*time.Millisecond)
		expect(t, c.Transport("example/api", client.Base(a), client.RetryWait(time.Minute)), 200, 25*time.Second, 35*time.Second)
	})
}

func TestTheContextOfARequestBoundsItsWaitAlone(t *testing.T) {
	inTime(t, 25*time.Second, func(t *testing.T, _ *brokertest.Broker, c *client.Client, a *api) {
		rt := c.Transport("example/api", client.Base(a), client.RetryWait(10*time.Second))
		var hasty, patient sync.WaitGroup
		began := time.Now()
		hasty.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			resp, err := rt.RoundTrip(get(t, home).WithContext(ctx))
			if err != nil || resp.StatusCode != http.StatusUnauthorized || time.Since(began) > 2*time.Second {
				t.Errorf("hasty: got %v after %v, want the API's 401 after a second", err, time.Since(began))
				return
			}
			_ = resp.Body.Close()
		})
		synctest.Wait()
		patient.Go(func() { expect(t, rt, 200, 4*time.Second, 7*time.Second) })
		hasty.Wait()
		patient.Wait()
	})
}

func TestNoBrokerNoNewToken(t *testing.T) {
	inTime(t, time.Minute, func(t *testing.T, b *brokertest.Broker, c *client.Client, a *api) {
		b.Shutdown()
		rt := c.Transport("example/api", client.Base(a))
		expect(t, rt, 401, 5*time.Second, 6*time.Second)
		b.Restart()
		time.Sleep(time.Minute)
		expect(t, rt, 200, 0, 5*time.Second)
	})
}

func TestAClosedClientWaitsForNothing(t *testing.T) {
	inTime(t, 0, func(t *testing.T, _ *brokertest.Broker, c *client.Client, a *api) {
		rt := c.Transport("example/api", client.Base(a))
		var end sync.WaitGroup
		end.Go(func() {
			time.Sleep(time.Second)
			_ = c.Close()
		})
		expect(t, rt, 401, time.Second, 1500*time.Millisecond)
		end.Wait()
	})
}

// dripping is a body that comes slowly, or never ends.
type dripping struct {
	once   sync.Once
	closed chan struct{}
	every  time.Duration
	read   int
}

func (d *dripping) Read(p []byte) (int, error) {
	select {
	case <-time.After(d.every):
		d.read += len(p)
		return len(p), nil
	case <-d.closed:
		return 0, io.ErrClosedPipe
	}
}

func (d *dripping) Close() error { d.once.Do(func() { close(d.closed) }); return nil }

func TestTheFirstReplyIsReadInBoundsAndClosed(t *testing.T) {
	for name, every := range map[string]time.Duration{"without end": time.Microsecond, "never": time.Hour} {
		inTime(t, time.Minute, func(t *testing.T, _ *brokertest.Broker, c *client.Client, a *api) {
			body := &dripping{closed: make(chan struct{}), every: every}
			rt := c.Transport("example/api", client.Base(trip(func(r *http.Request) (*http.Response, error) {
				resp, err := a.RoundTrip(r)
				if resp.StatusCode == http.StatusUnauthorized {
					resp.Body = body
				}
				return resp, err
			})))
			expect(t, rt, 200, 0, time.Second)
			select {
			case <-body.closed:
			default:
				t.Errorf("%s: the body is left open", name)
			}
			if body.read > 128<<10 {
				t.Errorf("%s: read %d bytes", name, body.read)
			}
		})
	}
}

// trip is a RoundTripper.
type trip func(*http.Request) (*http.Response, error)

func (f trip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestABaseMayFailAndSaysWhy(t *testing.T) {
	inTime(t, 0, func(t *testing.T, _ *brokertest.Broker, c *client.Client, _ *api) {
		rt := c.Transport("example/api", client.Base(trip(func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF })), client.Base(nil))
		if _, err := do(t, rt, home, strings.NewReader("x")); err == nil || !strings.Contains(err.Error(), "EOF") {
			t.Errorf("got %v, want the base's error", err)
		}
	})
}
