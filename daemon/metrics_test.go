package daemon_test

import (
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

// scrape is what /metrics says: series, as written, → value.
func scrape(t testing.TB, b *brokertest.Broker) map[string]float64 {
	t.Helper()
	code, text := ask(t, b, http.MethodGet, "/metrics")
	if code != http.StatusOK {
		t.Fatalf("got %d %s from /metrics", code, text)
	}
	series := map[string]float64{}
	for line := range strings.Lines(text) {
		if i := strings.LastIndexByte(line, ' '); !strings.HasPrefix(line, "#") && i > 0 {
			v, err := strconv.ParseFloat(strings.TrimSpace(line[i:]), 64)
			must(t, err)
			series[line[:i]] = v
		}
	}
	return series
}

// now is the sum of the series whose text begins with the name and holds the label.
func now(t testing.TB, b *brokertest.Broker, name, label string) (sum float64) {
	t.Helper()
	for series, v := range scrape(t, b) {
		if base, _, _ := strings.Cut(series, "{"); base == name && strings.Contains(series, label) {
			sum += v
		}
	}
	return sum
}

// clients are those of a broker that the rows of the table use.
type clients struct {
	*brokertest.Broker
	worker   tokenbrokerv1.TokenServiceClient
	operator tokenbrokerv1.CredentialServiceClient
	conn     *grpc.ClientConn
}

func start(t *testing.T) clients {
	t.Helper()
	b := brokertest.Start(t, brokertest.Config{Ops: true})
	b.AddClientCredentials("example/api", "files.read")
	b.Token("example/api")
	conn := b.Worker()
	return clients{b, tokenbrokerv1.NewTokenServiceClient(conn), tokenbrokerv1.NewCredentialServiceClient(b.Operator()), conn}
}

// TestMetrics has each metric's event happen, and wants that the metric moves, by how much or to what.
func TestMetrics(t *testing.T) {
	c := start(t)
	hour := float64(time.Hour / time.Second)
	for _, row := range []struct {
		event, metric, label string
		do                   func(*testing.T, clients)
		by                   float64 // 0 = anything more
	}{
		{"a token request that brings a token", "tokenbroker_refresh_total", `outcome="ok",provider="fast"`, addsCredential("example/a"), 1},
		{"how long it took", "tokenbroker_refresh_duration_seconds_count", `provider="fast"`, addsCredential("example/b"), 1},
		{"whom it served", "tokenbroker_refresh_waiters_count", `provider="fast"`, addsCredential("example/c"), 1},
		{"one that is refused", "tokenbroker_refresh_total", `outcome="configuration",provider="fast"`, isRefused, 1},
		{"a refused token that is reported", "tokenbroker_token_reported_rejected_total", `provider="fast",status="403"`, reports, 1},
		{"a call that is denied", "tokenbroker_denied_total", `action="credential.get"`, isDenied, 1},
		{"a subscription", "tokenbroker_streams", "", subscribes, 1},
		{"a change that subscribers see", "tokenbroker_stream_deliveries_total", "", changes, 0},
		{"a credential in use", "tokenbroker_credentials", `state="READY"`, addsCredential("example/d"), 1},
		{"one that is disabled", "tokenbroker_credentials", `state="DISABLED"`, disables("example/d"), 1},
		{"its expiry", "tokenbroker_credential_token_expiry_timestamp_seconds", `credential="example/e"`, addsCredential("example/e"), 0},
		{"a result that lost its compare", "tokenbroker_trouble_total", `kind="orphan"`, orphans, 1},
		{"a new policy", "tokenbroker_policy_last_reload_timestamp_seconds", "", changesPolicy, 0},
		{"a policy that is refused", "tokenbroker_policy_last_reload_successful", "", spoilsPolicy, -1},
		{"one that is put back", "tokenbroker_policy_last_reload_successful", "", mendsPolicy, 1},
		{"a call", "grpc_server_handled_total", `grpc_code="OK",grpc_method="GetToken"`, func(t *testing.T, c clients) { c.Token("example/a") }, 1},
	} {
		t.Run(row.event, func(t *testing.T) {
			before := now(t, c.Broker, row.metric, row.label)
			row.do(t, c)
			eventually(t, row.metric, func() bool {
				moved := now(t, c.Broker, row.metric, row.label) - before
				return moved == row.by || row.by == 0 && moved > 0
			})
		})
	}
	if got := now(t, c.Broker, "tokenbroker_build_info", `version="test"`); got != 1 {
		t.Errorf("got build_info %v, want 1", got)
	}
	if got := now(t, c.Broker, "tokenbroker_tls_certificate_expiry_timestamp_seconds", "") - float64(time.Now().Unix()); got < hour || got > 24*8*hour {
		t.Errorf("got a certificate that ends in %v s, want a week", got)
	}
}

func addsCredential(name string) func(*testing.T, clients) {
	return func(_ *testing.T, c clients) { c.AddClientCredentials(name, "files.read"); c.Token(name) }
}

func isRefused(t *testing.T, c clients) {
	c.Sandbox.Fail("fast", sandbox.Fault{Status: 401, Body: `{"error":"invalid_client"}`})
	c.AddClientCredentials("example/refused", "files.read")
	eventually(t, "the fault", func() bool { return c.Sandbox.Count(sandbox.Filter{Issuer: "fast", Status: 401}) == 1 })
}

func reports(t *testing.T, c clients) {
	tok := c.Token("example/api")
	_, err := c.worker.ReportRejected(within(t), &tokenbrokerv1.ReportRejectedRequest{
		Credential: "example/api", Generation: tok.GetGeneration(), HttpStatus: 403, ErrorCode: "insufficient_scope"})
	must(t, err)
}

func isDenied(t *testing.T, c clients) {
	if _, err := tokenbrokerv1.NewCredentialServiceClient(c.conn).GetCredential(within(t), &tokenbrokerv1.GetCredentialRequest{Credential: "example/api"}); err == nil {
		t.Errorf("got a credential as a worker, want a denial")
	}
}

func subscribes(t *testing.T, c clients) {
	stream, err := c.worker.Subscribe(within(t), &tokenbrokerv1.SubscribeRequest{Selectors: []*tokenbrokerv1.Selector{{Credential: "example/api"}}})
	must(t, err)
	for m := new(tokenbrokerv1.SubscribeResponse); m.GetSnapshotEnd() == nil; {
		m, err = stream.Recv()
		must(t, err)
	}
}

func changes(t *testing.T, c clients) {
	subscribes(t, c)
	disables("example/api")(t, c)
	_, err := c.operator.EnableCredential(within(t), &tokenbrokerv1.EnableCredentialRequest{Credential: "example/api"})
	must(t, err)
}

func disables(name string) func(*testing.T, clients) {
	return func(t *testing.T, c clients) {
		_, err := c.operator.DisableCredential(within(t), &tokenbrokerv1.DisableCredentialRequest{Credential: name})
		must(t, err)
	}
}

// orphans lets a consent land while a refresh token is being spent.
func orphans(t *testing.T, c clients) {
	c.Sandbox.Fail("rotating", sandbox.Fault{Hang: true, Stage: sandbox.AfterCommit})
	c.AddRefreshToken("example/drive", "rotating", "files.read")
	eventually(t, "an exchange in flight", func() bool { return c.Sandbox.Count(sandbox.Filter{Issuer: "rotating"}) == 1 })
	_, err := c.operator.ImportRefreshToken(within(t), &tokenbrokerv1.ImportRefreshTokenRequest{
		Credential: "example/drive", RefreshToken: c.Sandbox.SeedRefreshToken("rotating", "job", "files.read")})
	must(t, err)
	c.Sandbox.Release("rotating")
}

func changesPolicy(_ *testing.T, c clients) {
	c.SetPolicy(strings.ReplaceAll(brokertest.DefaultPolicy, "name: workers", "name: jobs"))
}

func spoilsPolicy(_ *testing.T, c clients) { c.SetPolicy("garbage") }

func mendsPolicy(t *testing.T, c clients) { changesPolicy(t, c) }

// TestMetricsForgetDeletedCredentials: a name that is gone has no series.
func TestMetricsForgetDeletedCredentials(t *testing.T) {
	c := start(t)
	const expiry = "tokenbroker_credential_token_expiry_timestamp_seconds"
	eventually(t, "a series", func() bool { return now(t, c.Broker, expiry, "example/api") > 0 })
	_, err := c.operator.DeleteCredential(within(t), &tokenbrokerv1.DeleteCredentialRequest{Credential: "example/api"})
	must(t, err)
	eventually(t, "no series", func() bool {
		return now(t, c.Broker, expiry, "example/api") == 0 && now(t, c.Broker, "tokenbroker_credentials", "") == 0
	})
}

var (
	metricName = regexp.MustCompile(`^[a-z_]+`)
	labelName  = regexp.MustCompile(`([a-z_]+)="`)
)

// TestMetricsAreSafe has all kinds of things happen, with names that callers and providers make up, and looks at what is shown.
func TestMetricsAreSafe(t *testing.T) {
	c := start(t)
	refresh := c.AddRefreshToken("example/drive", "rotating", "files.read")
	access := c.Token("example/drive").GetAccessToken()
	isRefused(t, c)
	isDenied(t, c)
	reports(t, c)
	c.Sandbox.Fail("fast", sandbox.Fault{Status: 400, Body: `{"error":"made_up_by_the_provider","error_description":"secret-of-the-provider"}`})
	c.AddClientCredentials("example/odd", "files.read")
	for _, method := range []string{"/made.up.Service/MadeUp", "/tokenbroker.v1.TokenService/MadeUp"} {
		_ = c.conn.Invoke(within(t), method, &tokenbrokerv1.GetTokenRequest{}, &tokenbrokerv1.GetTokenResponse{})
	}
	eventually(t, "the odd answer", func() bool { return c.Sandbox.Count(sandbox.Filter{Issuer: "fast", Status: 400}) == 1 })

	_, text := ask(t, c.Broker, http.MethodGet, "/metrics")
	for _, never := range []string{refresh, access, brokertest.Secret, sandbox.AccessPrefix, sandbox.RefreshPrefix, "MadeUp", "made.up", "made_up", "secret-of"} {
		if strings.Contains(text, never) {
			t.Errorf("the metrics hold %q", never)
		}
	}
	labels := map[string]bool{}
	for line := range strings.Lines(text) {
		name := metricName.FindString(line)
		if name == "" {
			continue
		}
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
		if !strings.Contains(text, "# HELP "+name+" ") && !strings.Contains(text, "# HELP "+base+" ") {
			t.Errorf("%s has no # HELP", name)
		}
		for _, m := range labelName.FindAllStringSubmatch(line, -1) {
			labels[m[1]] = true
		}
	}
	want := []string{"action", "credential", "goversion", "grpc_code", "grpc_method", "grpc_service", "grpc_type", "kind", "le", "outcome",
		"provider", "quantile", "reason", "state", "status", "version", "what"}
	for _, l := range slices.Sorted(maps.Keys(labels)) {
		if !slices.Contains(want, l) {
			t.Errorf("label %q is new: is what it takes bounded?", l)
		}
	}
}

// TestReloadTakesUpFiles is what SIGHUP does, without waiting for the next look.
func TestReloadTakesUpFiles(t *testing.T) {
	c := start(t)
	before := now(t, c.Broker, "tokenbroker_policy_last_reload_timestamp_seconds", "")
	must(t, os.Rename(filepath.Join(c.Dir, "audit.jsonl"), filepath.Join(c.Dir, "audit.jsonl.1")))
	changesPolicy(t, c)
	c.Daemon.Reload(t.Context())
	if got := now(t, c.Broker, "tokenbroker_policy_last_reload_timestamp_seconds", ""); got <= before {
		t.Errorf("the policy was not taken up")
	}
	if _, err := os.Stat(filepath.Join(c.Dir, "audit.jsonl")); err != nil {
		t.Errorf("the audit log was not opened anew: %v", err)
	}
	c.Token("example/api")
}

// TestADeadGrantShowsInTheMetricsAfterARestart: an alert must not end because the broker was restarted and nobody asked since.
func TestADeadGrantShowsInTheMetricsAfterARestart(t *testing.T) {
	c := start(t)
	seed := c.AddRefreshToken("example/drive", "rotating", "files.read")
	eventually(t, "a token", func() bool { return now(t, c.Broker, "tokenbroker_credentials", "READY") == 2 })
	c.Sandbox.RevokeFamily(seed)
	_, err := c.operator.ImportRefreshToken(within(t), &tokenbrokerv1.ImportRefreshTokenRequest{Credential: "example/drive", RefreshToken: seed})
	must(t, err)
	dead := func() bool { return now(t, c.Broker, "tokenbroker_credentials", "REAUTHORIZE") == 1 }
	eventually(t, "a dead grant", dead)
	c.Restart()
	if !dead() {
		t.Errorf("after a restart: got %v, want one credential in REAUTHORIZE", now(t, c.Broker, "tokenbroker_credentials", "REAUTHORIZE"))
	}
	if got := now(t, c.Broker, "tokenbroker_credentials", "READY"); got != 1 {
		t.Errorf("after a restart: got %v READY, want 1", got)
	}
}
