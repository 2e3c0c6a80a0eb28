package grant_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/grant"
	"github.com/tokenbroker/tokenbroker/provider"
)

func TestConnectionsThatBreak(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	write := func(text string) func(net.Conn, *rawServer) {
		return func(c net.Conn, s *rawServer) { s.request(c); _, _ = io.WriteString(c, text) }
	}
	for _, tt := range []struct {
		name   string
		handle func(net.Conn, *rawServer)
		spent  int
		want   outcome
	}{
		{"closed after the request", write(""), 1, bad(ambiguous, "connection_lost")},
		{"closed within the header", write("HTTP/1.1 200"), 1, bad(ambiguous, "connection_lost")},
		{"not HTTP", write(replyCanary + "\r\n\r\n"), 1, bad(ambiguous, "connection_lost")},
		{"a header without end", write(head + "X: " + strings.Repeat("x", 100<<10) + "\r\n\r\n{}"), 1, bad(ambiguous, "connection_lost")},
		{"closed before the body", write(head + "Content-Length: 60\r\n\r\n"), 1, bad(ambiguous, "reply_cut")},
		{"closed within the body", write(head + "Content-Length: 900\r\n\r\n" + `{"access_token":"at","refresh_token":"r2","sco`), 1,
			outcome{refresh: "r2", class: ambiguous, code: "reply_cut"}},
		{"closed within the refresh token", write(head + "Content-Length: 900\r\n\r\n" + `{"access_token":"at","refresh_token":"r`), 1, bad(ambiguous, "reply_cut")},
		{"closed after the object", write(head + "Content-Length: 900\r\n\r\n" + `{"access_token":"at","expires_in":60}`), 1,
			outcome{access: "at", life: time.Minute}},
		{"closed before the last chunk", write(head + "Transfer-Encoding: chunked\r\n\r\n25\r\n" + `{"access_token":"at","expires_in":60}` + "\r\n"), 1,
			outcome{access: "at", life: time.Minute}},
		{"a refusal that is cut", write("HTTP/1.1 400 Bad\r\nContent-Length: 900\r\n\r\n" + `{"error":"invalid_grant","err`), 1, bad(dead, "invalid_grant")},
		{"a refusal before the request is read", func(c net.Conn, s *rawServer) {
			_, _ = c.Read(make([]byte, 1))
			_, _ = io.WriteString(c, "HTTP/1.1 429 Wait\r\nContent-Length: 0\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
		}, 0, bad(throttled, "http_429")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serveRaw(t, tt.handle)
			out, err := newClient(t, s.profile()).Exchange(t.Context(), refreshRequest())
			if got := outcomeOf(t, out, err); got.class != tt.want.class || got.code != tt.want.code || got.refresh != tt.want.refresh || got.access != tt.want.access {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if s.connections() != 1 || s.spent() > tt.spent {
				t.Errorf("got %d connections and the refresh token %d times, want 1 and %d", s.connections(), s.spent(), tt.spent)
			}
		})
	}
}

func TestFormThatIsCutIsNotBelieved(t *testing.T) {
	for text, refresh := range map[string]string{
		"access_token=at&refresh_token=ghr_hal":               "",
		"refresh_token=ghr_whole&access_token=at&expires_in=": "ghr_whole",
		"access_token=a": "",
	} {
		s := serveRaw(t, func(c net.Conn, s *rawServer) {
			s.request(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"+text)
		})
		out, err := newClient(t, s.profile()).Exchange(t.Context(), refreshRequest())
		if got := outcomeOf(t, out, err); got.code != "reply_cut" || got.class != ambiguous || got.refresh != refresh {
			t.Errorf("%s: got %+v, want reply_cut and refresh token %q", text, got, refresh)
		}
	}
}

// Whether the client had begun to write is a race that it may lose either way; what it says must fit what was read.
func TestConnectionClosedBeforeAnythingIsRead(t *testing.T) {
	s := serveRaw(t, func(net.Conn, *rawServer) {})
	_, err := newClient(t, s.profile()).Exchange(t.Context(), refreshRequest())
	f := failureOf(t, err)
	if want := map[bool]tokenbroker.Class{true: ambiguous, false: transient}[f.Sent]; f.Class != want {
		t.Errorf("got %+v, want class %s", f, want)
	}
	if s.connections() != 1 {
		t.Errorf("got %d connections, want 1", s.connections())
	}
}

func TestS29SlowRepliesEndWithTheDeadline(t *testing.T) {
	const deadline = 2 * time.Second // a busy machine may take a while to send the request
	drip := func(c net.Conn, s *rawServer) {
		s.request(c)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n{")
		for range 10_000 {
			if _, err := io.WriteString(c, " "); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond) // the server's pace; nothing waits for it
		}
	}
	silent := func(c net.Conn, s *rawServer) {
		s.request(c)
		_, _ = c.Read(make([]byte, 1)) // until the client leaves
	}
	for _, tt := range []struct {
		name   string
		handle func(net.Conn, *rawServer)
		config time.Duration
		ctx    time.Duration
	}{
		{"silence until the caller's deadline", silent, 0, deadline},
		{"silence until the client's", silent, deadline, 0},
		{"a byte at a time until the caller's deadline", drip, 0, deadline},
		{"a byte at a time until the client's", drip, deadline, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := serveRaw(t, tt.handle)
			c := newClient(t, s.profile(), func(cfg *grant.Config) { cfg.Timeout = tt.config })
			ctx, cancel := context.WithCancel(t.Context())
			if tt.ctx > 0 {
				ctx, cancel = context.WithTimeout(t.Context(), tt.ctx)
			}
			defer cancel()
			begun := time.Now()
			out, err := c.Exchange(ctx, refreshRequest())
			if got := outcomeOf(t, out, err); got.class != ambiguous || got.code != "timeout" {
				t.Errorf("got %+v, want an ambiguous timeout", got)
			}
			if took := time.Since(begun); took > 20*time.Second { // the client's own is 30 s if nobody says otherwise
				t.Errorf("took %v", took)
			}
			if s.connections() != 1 || s.spent() != 1 {
				t.Errorf("got %d connections and the refresh token %d times, want 1 and 1", s.connections(), s.spent())
			}
		})
	}
}

func TestCancelAfterTheRequestIsAmbiguous(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := serveRaw(t, func(c net.Conn, s *rawServer) {
		s.request(c)
		cancel()
		_, _ = c.Read(make([]byte, 1))
	})
	_, err := newClient(t, s.profile()).Exchange(ctx, refreshRequest())
	if f := failureOf(t, err); f.Class != ambiguous || f.Code != "canceled" || !f.Sent {
		t.Errorf("got %+v", f)
	}
}

func TestCancelBeforeTheRequestIsUnsent(t *testing.T) {
	s := serveRaw(t, func(c net.Conn, s *rawServer) { s.request(c) })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := newClient(t, s.profile()).Exchange(ctx, refreshRequest())
	if f := failureOf(t, err); f.Class != transient || f.Code != "canceled" || f.Sent {
		t.Errorf("got %+v", f)
	}
	if s.spent() != 0 {
		t.Error("the refresh token left")
	}
}

// A transport that holds the body and reads it after it reported an error must find nothing to send.
func TestBodyIsSealedOnceTheRequestCountsAsUnsent(t *testing.T) {
	var body io.ReadCloser
	c := newClient(t, provider.Profile{TokenEndpoint: "https://login.example.com/token"}, func(cfg *grant.Config) {
		cfg.Transport = func(string) http.RoundTripper {
			return roundTrip(func(r *http.Request) (*http.Response, error) {
				body = r.Body
				if r.GetBody != nil {
					t.Error("the request can be rewound")
				}
				return nil, errors.New(replyCanary)
			})
		}
	})
	_, err := c.Exchange(t.Context(), refreshRequest())
	if f := failureOf(t, err); f.Sent || f.Class != transient {
		t.Errorf("got %+v, want it unsent", f)
	}
	if late, err := io.ReadAll(body); err == nil || len(late) > 0 {
		t.Errorf("read %d bytes afterwards, error %v", len(late), err)
	}
}

func TestConnectFailuresAreUnsent(t *testing.T) {
	for _, tt := range []struct {
		name    string
		profile provider.Profile
		code    string
		class   tokenbroker.Class
	}{
		{"refused", provider.Profile{TokenEndpoint: "http://" + nobody, InsecureLoopback: true}, "connect_failed", transient},
		{"a proxy that refuses", provider.Profile{TokenEndpoint: "https://203.0.113.7/token", Proxy: "http://" + nobody}, "proxy_failed", transient},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := newClient(t, tt.profile).Exchange(t.Context(), refreshRequest())
			if f := failureOf(t, err); f.Sent || f.Class != tt.class || f.Code != tt.code {
				t.Errorf("got %+v, want unsent %s %s", f, tt.class, tt.code)
			}
		})
	}
}

func TestS27RedirectsAreNotFollowedAndTheBodyIsNotSentAgain(t *testing.T) {
	other := serve(t, reply(200, "", plainReply))
	for _, status := range []int{301, 302, 303, 307, 308} {
		s := serve(t, reply(status, "", "", "Location", other.URL+"/token"))
		for _, request := range []tokenbroker.ExchangeRequest{refreshRequest(), ccRequest()} {
			_, err := newClient(t, trusting(t, s)).Exchange(t.Context(), request)
			if f := failureOf(t, err); f.Class != transient || f.Code != "redirect_refused" || f.HTTPStatus != status {
				t.Errorf("%d: got %+v", status, f)
			}
		}
		if got := len(s.requests()); got != 2 {
			t.Errorf("%d: got %d requests for 2 exchanges", status, got)
		}
	}
	if got := len(other.requests()); got != 0 {
		t.Errorf("the other server got %d requests", got)
	}
}

func TestS29BodiesThatAreTooMuch(t *testing.T) {
	bomb := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, plainReply)
		zeros := make([]byte, 1<<20)
		for range 64 {
			_, _ = z.Write(zeros)
		}
		_ = z.Close()
	}
	endless := func(prefix string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, prefix)
			_, _ = w.Write(bytes.Repeat([]byte(" "), 10<<20))
		}
	}
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		want    outcome
	}{
		{"a gzip bomb", bomb, bad(ambiguous, "unsupported_encoding")},
		{"10 MB before the end", endless(`{"access_token":"at","refresh_token":"r2",`), outcome{refresh: "r2", class: ambiguous, code: "reply_too_large"}},
		{"10 MB of nothing", endless(""), bad(ambiguous, "reply_too_large")},
		{"10 MB after the end", endless(plainReply), outcome{access: "at"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serve(t, tt.handler)
			out, err := newClient(t, trusting(t, s)).Exchange(t.Context(), refreshRequest())
			if got := outcomeOf(t, out, err); got.class != tt.want.class || got.code != tt.want.code || got.refresh != tt.want.refresh || got.access != tt.want.access {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if n := len(s.requests()); n != 1 {
				t.Errorf("got %d requests, want 1", n)
			}
		})
	}
}

// endless is a body without end that counts what was read of it.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	return copy(p, bytes.Repeat([]byte{' '}, len(p))), nil
}

func (e *endless) Close() error { return nil }

func TestS29AnEndlessBodyIsReadUpToTheLimit(t *testing.T) {
	body := &endless{}
	c := newClient(t, provider.Profile{TokenEndpoint: "https://login.example.com/token"}, func(cfg *grant.Config) {
		cfg.Transport = func(string) http.RoundTripper {
			return roundTrip(func(r *http.Request) (*http.Response, error) {
				_, err := io.Copy(io.Discard, r.Body)
				return &http.Response{StatusCode: http.StatusOK, Body: body}, err
			})
		}
	})
	_, err := c.Exchange(t.Context(), refreshRequest())
	if f := failureOf(t, err); f.Code != "reply_too_large" {
		t.Errorf("got %+v", f)
	}
	if body.read > 512<<10 {
		t.Errorf("read %d bytes", body.read)
	}
}

func TestKeptConnectionThatDiesIsNotRetried(t *testing.T) {
	s := serveRaw(t, func(c net.Conn, s *rawServer) {
		s.request(c)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n"+`{"access_token":"at"}`)
		s.request(c) // the second request dies with the connection
	})
	p := s.profile()
	p.Rotates = new(false)
	c := newClient(t, p)
	if _, err := c.Exchange(t.Context(), refreshRequest()); err != nil {
		t.Fatal(err)
	}
	_, err := c.Exchange(t.Context(), refreshRequest())
	if f := failureOf(t, err); f.Class != ambiguous || !f.Sent {
		t.Errorf("got %+v, want an ambiguous failure", f)
	}
	if s.connections() != 1 || s.spent() != 2 {
		t.Errorf("got %d connections and %d requests, want 1 and 2", s.connections(), s.spent())
	}
}

// A server that refuses an HTTP/2 stream invites the client to send again; net/http would, if it could rewind the body.
func TestHTTP2StreamThatIsRefusedIsNotRetried(t *testing.T) {
	for _, fault := range []string{"refused stream", "going away", "reset"} {
		t.Run(fault, func(t *testing.T) {
			streams := make(chan int, 1)
			s := serve(t, reply(200, "", plainReply), func(s *httptest.Server) {
				s.EnableHTTP2 = true
				s.Config.TLSNextProto = hijackHTTP2(fault, streams)
			})
			_, err := newClient(t, trusting(t, s)).Exchange(t.Context(), ccRequest())
			if f := failureOf(t, err); f.Class != ambiguous || !f.Sent {
				t.Errorf("got %+v, want an ambiguous failure", f)
			}
			s.CloseClientConnections()
			if got := <-streams; got != 1 {
				t.Errorf("got %d streams, want 1", got)
			}
		})
	}
}

func TestHTTP2IsSpokenByRepeatableRequests(t *testing.T) {
	var protos []string
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		protos = append(protos, r.Proto)
		reply(200, "", plainReply)(w, r)
	}, func(s *httptest.Server) { s.EnableHTTP2 = true })
	c := newClient(t, trusting(t, s))
	for _, request := range []tokenbroker.ExchangeRequest{ccRequest(), refreshRequest()} {
		if _, err := c.Exchange(t.Context(), request); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Join(protos, " ") != "HTTP/2.0 HTTP/1.1" {
		t.Errorf("got %v, want HTTP/2 where a request may be repeated and HTTP/1.1 where not", protos)
	}
}
