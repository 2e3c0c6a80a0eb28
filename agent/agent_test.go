package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/tokenbroker/tokenbroker/agent"
	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/client"
	"github.com/tokenbroker/tokenbroker/mtls"
	"github.com/tokenbroker/tokenbroker/policy"
	"github.com/tokenbroker/tokenbroker/provider"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what has to come.
const patience = time.Minute

// world is a broker over TCP and an agent in front of it.
type world struct {
	*brokertest.Broker
	*agent.Agent
	t      testing.TB
	dir    string
	socket string
	trail  string
	stop   func()
}

// start runs a broker and an agent of it until the test ends. change may change the agent's config.
func start(t testing.TB, change ...func(*agent.Config)) *world {
	t.Helper()
	w := &world{t: t, Broker: brokertest.Start(t, brokertest.Config{TCP: true, Profile: quick}), dir: folder(t)}
	w.AddClientCredentials("example/api", "files.read", "files.write")
	w.socket, w.trail = filepath.Join(w.dir, "run", "agent.sock"), filepath.Join(w.dir, "audit.jsonl")
	w.run(change...)
	return w
}

// quick lets a provider be asked again at once.
func quick(_ string, p *provider.Profile) {
	floor := provider.Duration(time.Millisecond)
	p.Floor = &floor
}

// folder is a temporary folder that other users may look into, with a short path, as sockets need.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") //nolint:usetesting // the path of a socket has to be short, and others have to get there
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// upstream is a client of the broker, as a worker.
func (w *world) upstream() *client.Client {
	w.t.Helper()
	c, err := client.New(client.Config{Addr: brokertest.Target, Server: brokertest.ServerID,
		Files: w.Files(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true}), Dial: []grpc.DialOption{w.Dialer()}})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// run runs the agent until the test ends, or stop.
func (w *world) run(change ...func(*agent.Config)) {
	w.t.Helper()
	c := w.upstream()
	cfg := agent.Config{Client: c, Socket: w.socket, AuditFile: w.trail}
	for _, do := range change {
		do(&cfg)
	}
	a, err := agent.Open(w.t.Context(), cfg)
	if err != nil {
		_ = c.Close()
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	var over bool
	w.Agent, w.stop = a, func() {
		if over {
			return
		}
		over = true
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("the agent ended with %v", err)
		}
		_ = c.Close()
	}
	w.t.Cleanup(func() { w.stop() })
}

// rule gives uids credentials.
func rule(t testing.TB, name string, uids, gids []uint32, credentials ...string) agent.Rule {
	t.Helper()
	r := agent.Rule{Name: name, UIDs: uids, GIDs: gids}
	for _, text := range credentials {
		p, err := policy.ParsePattern(text)
		if err != nil {
			t.Fatal(err)
		}
		r.Credentials = append(r.Credentials, p)
	}
	return r
}

// reply is what came over HTTP.
type reply struct {
	*http.Response
	text string
}

// code is the HTTP status.
func (r reply) code() int { return r.StatusCode }

// field is a field of a JSON object.
func (r reply) field(path ...string) any {
	var v any
	_ = json.Unmarshal([]byte(r.text), &v)
	for _, name := range path {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	return v
}

// do sends a request over the socket.
func (w *world) do(method, path, body string, headers ...string) reply {
	w.t.Helper()
	return w.send(func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", w.socket) },
		method, "http://localhost"+path, body, headers...)
}

// send sends a request by a way of its own.
func (w *world) send(dial func(context.Context) (net.Conn, error), method, url, body string, headers ...string) reply {
	w.t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(w.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := (&http.Client{Transport: transport, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}).Do(req)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(resp.Body); err != nil {
		w.t.Fatal(err)
	}
	return reply{resp, text.String()}
}

// records are those of the agent's trail so far, oldest first.
func (w *world) records() []audit.Entry {
	w.t.Helper()
	data, err := os.ReadFile(w.trail)
	if err != nil {
		w.t.Fatal(err)
	}
	var all []audit.Entry
	for line := range bytes.Lines(data) {
		e, err := audit.ParseEntry(line)
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// last is the newest record of an action.
func (w *world) last(action string) audit.Entry {
	w.t.Helper()
	all := w.records()
	for _, e := range slices.Backward(all) {
		if e.Action == action {
			return e
		}
	}
	w.t.Fatalf("no record of %s", action)
	return audit.Entry{}
}
