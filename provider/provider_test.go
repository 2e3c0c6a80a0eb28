package provider_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/provider"
)

const endpoint = "https://login.example.com/token"

func TestParseReadsEveryField(t *testing.T) {
	got, err := provider.Parse([]byte(`
acme:
  profile: generic
  token_endpoint: https://login.example.com/token
  auth_methods: [client_secret_post]
  raw_basic: true
  token_params: {tenant: "7"}
  grace: 10m
  idle_life: 90d
  absolute_life: 1d12h
  rotates: false
  strikes: 5
  errors:
    - {status: 400, code: invalid_grant, description: "already being processed", class: transient, retry_after: 5s}
  rate: 2.5
  burst: 4
`))
	if err != nil {
		t.Fatal(err)
	}
	p := got["acme"]
	if *p.Rotates || !*p.RawBasic || *p.Strikes != 5 || p.Rate != 2.5 || p.TokenParams["tenant"] != "7" {
		t.Errorf("read %+v", p)
	}
	if got, want := time.Duration(*p.IdleLife), 90*24*time.Hour; got != want {
		t.Errorf("idle life: got %v, want %v", got, want)
	}
	if got, want := time.Duration(*p.AbsoluteLife), 36*time.Hour; got != want {
		t.Errorf("absolute life: got %v, want %v", got, want)
	}
	if len(p.Errors) != 1 || p.Errors[0].Class != tokenbroker.ClassTransient || time.Duration(p.Errors[0].RetryAfter) != 5*time.Second {
		t.Errorf("error rules: got %+v", p.Errors)
	}
}

func TestADurationMayBeThatOfAnotherKey(t *testing.T) {
	all, err := provider.Parse([]byte("acme:\n  grace: &life 30s\n  absolute_life: *life\n"))
	if p := all["acme"]; err != nil || p.AbsoluteLife == nil || time.Duration(*p.AbsoluteLife) != 30*time.Second {
		t.Errorf("got %v, %v", p.AbsoluteLife, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct{ name, data, want string }{
		{"an unknown key", "acme:\n  token_endpont: x\n", `line 2, column 3: unknown field "token_endpont"`},
		{"an unknown key in a rule", "acme:\n  errors:\n    - klass: x\n", `line 3, column 7: unknown field "klass"`},
		{"a repeated key", "acme:\n  issuer: a\n  issuer: b\n", "line 3, column 3"},
		{"a repeated provider", "acme:\n  issuer: a\nacme:\n  issuer: b\n", "line 3, column 1"},
		{"a wrong type", "acme:\n  rotates: perhaps\n", "line 2, column 12"},
		{"a duration without a unit", "acme:\n  grace: 30\n", `line 2, column 10: acme.grace: duration "30" is not of a form like 90s`},
		{"a duration in weeks", "acme:\n  grace: 2w\n", `line 2, column 10: acme.grace: duration "2w"`},
		{"a duration deep inside", "acme:\n  errors:\n    - {status: 500, retry_after: soon}\n", `line 3, column 34: acme.errors[0].retry_after: duration "soon"`},
		{"a list for a duration", "acme:\n  grace: [1s]\n", "line 2, column 10: acme.grace: "},
		{"a duration that is the one of another key", "acme:\n  grace: &life 30\n  absolute_life: *life\n", "line 2, column 16: acme.grace: duration"},
		{"a list", "- acme\n", "line 1"},
		{"broken YAML", "acme: {", "line 1"},
		{"a second document", "a: {}\n---\nb: {}\n", "more than one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := provider.Parse([]byte(tt.data))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("error has several lines: %q", err)
			}
		})
	}
}

func TestParseTakesAnEmptyFile(t *testing.T) {
	got, err := provider.Parse(nil)
	if err != nil || len(got) != 0 {
		t.Errorf("got %v, %v, want no profiles", got, err)
	}
}

func TestNewGivesUnknownServersTheStrictReading(t *testing.T) {
	c, err := provider.New(map[string]provider.Profile{"acme": {TokenEndpoint: endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	got, ok := c.Traits("acme")
	want := tokenbroker.Traits{Rotates: true, Strikes: 1, Floor: 30 * time.Second, DefaultLife: time.Hour}
	if !ok {
		t.Fatal("no traits")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("traits (-want +got):\n%s", diff)
	}
	p, _ := c.Profile("acme")
	if p.Accept != "application/json" || p.ScopeSeparator != " " || p.AudienceParameter != "audience" || p.ErrorPath != "error" {
		t.Errorf("profile: got %+v", p)
	}
	if _, ok := c.Traits("nobody"); ok {
		t.Error("got traits of an unknown provider")
	}
	if got, want := c.Configured(), []string{"acme"}; !slices.Equal(got, want) {
		t.Errorf("configured: got %v, want %v", got, want)
	}
	if got := c.Warnings(); len(got) != 0 {
		t.Errorf("warnings: got %q, want none", got)
	}
}

func TestTraitsOfAnEmptyProfileRotate(t *testing.T) {
	if got := (provider.Profile{}).Traits(); !got.Rotates || got.Downscopes {
		t.Errorf("got %+v, want rotation and no downscoping", got)
	}
}

func TestNewMergesOverTheBuiltInProfile(t *testing.T) {
	hour := provider.Duration(time.Hour)
	c, err := provider.New(map[string]provider.Profile{"acme": {
		TokenEndpoint: endpoint,
		Rotates:       new(false),
		Grace:         &hour,
		Downscopes:    new(true),
		KillsOld:      new(true),
		Accept:        "text/plain",
		TokenParams:   map[string]string{"a": "b"},
		Errors:        []provider.ErrorRule{{Code: "x", Class: tokenbroker.ClassTransient}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	got, _ := c.Traits("acme")
	want := tokenbroker.Traits{Grace: time.Hour, KillsOld: true, Downscopes: true, Strikes: 1, Floor: 30 * time.Second, DefaultLife: time.Hour}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("traits (-want +got):\n%s", diff)
	}
	p, _ := c.Profile("acme")
	if p.Accept != "text/plain" || p.TokenParams["a"] != "b" || len(p.Errors) != 1 || p.ExpiryField != "expires_in" {
		t.Errorf("profile: got %+v", p)
	}
}

func TestNewRefuses(t *testing.T) {
	at := func(url string) provider.Profile { return provider.Profile{TokenEndpoint: url} }
	with := func(change func(*provider.Profile)) provider.Profile {
		p := at(endpoint)
		change(&p)
		return p
	}
	negative := provider.Duration(-1)
	for _, tt := range []struct {
		name string
		p    provider.Profile
		want string
	}{
		{"no endpoint", provider.Profile{}, "token_endpoint: missing"},
		{"an unknown base", provider.Profile{Base: "acme", TokenEndpoint: endpoint}, `no built-in profile "acme"; there are`},
		{"plain http", at("http://login.example.com/token"), "must be https"},
		{"plain http on loopback", with(func(p *provider.Profile) { p.TokenEndpoint, p.AllowPrivate = "http://127.0.0.1/token", true }), "insecure_loopback"},
		{"plain http on a private address", with(func(p *provider.Profile) {
			p.TokenEndpoint, p.AllowPrivate, p.InsecureLoopback = "http://10.0.0.1/token", true, true
		}), "must be https"},
		{"plain http on localhost", with(func(p *provider.Profile) { p.TokenEndpoint, p.InsecureLoopback = "http://localhost/token", true }), "must be https"},
		{"another scheme", at("ftp://login.example.com/token"), "must be an https URL"},
		{"no scheme", at("login.example.com/token"), "must be an https URL"},
		{"no host", at("https:///token"), "has no host"},
		{"a user", at("https://me:pw@login.example.com/token"), "user or password"},
		{"a user to hide the host", at("https://login.example.com@evil.example/token"), "user or password"},
		{"a fragment", at("https://login.example.com/token#x"), "fragment"},
		{"an empty fragment", at("https://login.example.com/token#"), "fragment"},
		{"a secret in the query", at("https://login.example.com/token?Client_Secret=s3cr3t"), "query"},
		{"a broken query", at("https://login.example.com/token?a=%zz"), "query can't be read"},
		{"a bad port", at("https://login.example.com:99999/token"), "port"},
		{"a control character", at("https://login.example.com/\x7f"), "not a URL"},
		{"loopback", at("https://127.0.0.1/token"), "loopback"},
		{"localhost", at("https://localhost/token"), "loopback"},
		{"a name below localhost", at("https://a.LOCALHOST./token"), "loopback"},
		{"loopback in IPv6", at("https://[::1]/token"), "loopback"},
		{"loopback mapped", at("https://[::ffff:127.0.0.1]/token"), "loopback"},
		{"a private address", at("https://192.168.7.7/token"), "private"},
		{"metadata", at("https://169.254.169.254/token"), "link-local"},
		{"metadata mapped", at("https://[::ffff:169.254.169.254]/token"), "link-local"},
		{"metadata though private is allowed", with(func(p *provider.Profile) { p.TokenEndpoint, p.AllowPrivate = "https://169.254.169.254/", true }), "link-local"},
		{"metadata in IPv6 though private is allowed", with(func(p *provider.Profile) { p.TokenEndpoint, p.AllowPrivate = "https://[fd00:ec2::254]/", true }), "metadata"},
		{"a decimal address", at("https://2130706433/token"), "number in disguise"},
		{"a hexadecimal address", at("https://0x7f000001/token"), "number in disguise"},
		{"a short address", at("https://127.1/token"), "number in disguise"},
		{"an octal address", at("https://0177.0.0.1/token"), "number in disguise"},
		{"an address with a zone", at("https://[fe80::1%25eth0]/token"), "zone"},
		{"a host in another script", at("https://exаmple.com/token"), "ASCII"},
		{"a proxy with a password", with(func(p *provider.Profile) { p.Proxy = "http://u:p@proxy.example.com" }), "proxy: must not hold"},
		{"a proxy of another kind", with(func(p *provider.Profile) { p.Proxy = "socks5://proxy.example.com" }), "proxy: must be"},
		{"a proxy with a path", with(func(p *provider.Profile) { p.Proxy = "http://proxy.example.com/x" }), "proxy: must be scheme"},
		{"a proxy for plain http", with(func(p *provider.Profile) {
			p.TokenEndpoint, p.InsecureLoopback, p.Proxy = "http://127.0.0.1/t", true, "http://proxy.example.com"
		}), "proxy: can't"},
		{"a plain issuer", with(func(p *provider.Profile) { p.Issuer = "http://login.example.com" }), "issuer"},
		{"an unknown auth method", with(func(p *provider.Profile) { p.AuthMethods = []tokenbroker.AuthMethod{"magic"} }), `auth_methods[0]: unknown method "magic"`},
		{"no auth method", with(func(p *provider.Profile) { p.AuthMethods = []tokenbroker.AuthMethod{} }), "auth_methods: empty"},
		{"a protocol field", with(func(p *provider.Profile) { p.TokenParams = map[string]string{"client_secret": "x"} }), "set by the broker"},
		{"an audience parameter", with(func(p *provider.Profile) { p.AudienceParameter = "aud" }), "audience_parameter"},
		{"a scope separator", with(func(p *provider.Profile) { p.ScopeSeparator = "ab" }), "scope_separator"},
		{"an accept header", with(func(p *provider.Profile) { p.Accept = "a\nb" }), "accept"},
		{"a token path", with(func(p *provider.Profile) { p.TokenPath = "a..b" }), "token_path"},
		{"an expiry field", with(func(p *provider.Profile) { p.ExpiryField = "a.b" }), "expiry_field"},
		{"an expiry unit", with(func(p *provider.Profile) { p.ExpiryUnit = "h" }), "expiry_unit"},
		{"metadata that is a token", with(func(p *provider.Profile) { p.Metadata = []string{"authed_user.refresh_token"} }), "metadata[0]"},
		{"another expiry unit", with(func(p *provider.Profile) { p.ExpiryUnit = "rfc3339ish" }), "expiry_unit: must be s, ms, unix, unix_ms or rfc3339"},
		{"a negative life", with(func(p *provider.Profile) { p.Grace = &negative }), "grace: must not be negative"},
		{"negative strikes", with(func(p *provider.Profile) { p.Strikes = new(-1) }), "strikes"},
		{"a negative rate", with(func(p *provider.Profile) { p.Rate = -1 }), "rate"},
		{"an unknown class", with(func(p *provider.Profile) { p.Errors = []provider.ErrorRule{{Code: "x", Class: "fatal"}} }), `errors[0].class: unknown class "fatal"`},
		{"a rule without a condition", with(func(p *provider.Profile) { p.Errors = []provider.ErrorRule{{Class: "transient"}} }), "needs a status"},
		{"a rule with a bad status", with(func(p *provider.Profile) { p.Errors = []provider.ErrorRule{{Status: 99, Class: "transient"}} }), "200 to 599"},
		{"a rule with a bad pattern", with(func(p *provider.Profile) { p.Errors = []provider.ErrorRule{{Description: "(", Class: "transient"}} }), "errors[0].description"},
		{"a rule with a negative wait", with(func(p *provider.Profile) {
			p.Errors = []provider.ErrorRule{{Code: "x", Class: "transient", RetryAfter: -1}}
		}), "retry_after"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := provider.New(map[string]provider.Profile{"acme": tt.p})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got error %v, want one with %q", err, tt.want)
			}
			if c != nil || !strings.Contains(err.Error(), `provider "acme"`) || strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("got %v, error %q", c, err)
			}
		})
	}
}

func TestNewReportsAllProblemsAtOnce(t *testing.T) {
	_, err := provider.New(map[string]provider.Profile{
		"a":   {TokenEndpoint: "http://a.example/#x", ExpiryUnit: "h"},
		"b":   {},
		"C/d": {TokenEndpoint: endpoint},
	})
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{"must be https", "fragment", "expiry_unit", `"b": token_endpoint: missing`, `"C/d": name`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
}

func TestNewAllowsWhatWasAllowedAndWarns(t *testing.T) {
	c, err := provider.New(map[string]provider.Profile{
		"dev":    {TokenEndpoint: "http://127.0.0.1:8080/token", InsecureLoopback: true},
		"dev6":   {TokenEndpoint: "http://[::1]:8080/token", InsecureLoopback: true},
		"onprem": {TokenEndpoint: "https://10.1.2.3/token?tenant=7", AllowPrivate: true, Proxy: "http://proxy.example.com:3128", ProxyResolves: true},
		"public": {TokenEndpoint: "https://203.0.113.9:8443/token", Issuer: "https://203.0.113.9"},
		"nested": {TokenEndpoint: endpoint, TokenPath: "a.b", Downscopes: new(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(c.Warnings(), "\n")
	for _, want := range []string{"provider dev: insecure_loopback", "provider dev6:", "provider onprem: allow_private", "provider onprem: proxy_resolves", "provider nested: downscopes"} {
		if !strings.Contains(got, want) {
			t.Errorf("warnings %q lack %q", got, want)
		}
	}
	if strings.Contains(got, "public") {
		t.Errorf("warnings %q speak of public", got)
	}
}

func TestCheckAddr(t *testing.T) {
	const none, loopback, private = "none", "insecure_loopback", "allow_private"
	profiles := map[string]provider.Profile{none: {}, loopback: {InsecureLoopback: true}, private: {AllowPrivate: true}}
	for addr, allowed := range map[string][]string{
		"203.0.113.1":              {none, loopback, private},
		"2606:4700::1111":          {none, loopback, private},
		"127.0.0.1":                {loopback, private},
		"127.255.255.254":          {loopback, private},
		"::1":                      {loopback, private},
		"::ffff:127.0.0.1":         {loopback, private},
		"10.0.0.1":                 {private},
		"172.31.255.255":           {private},
		"172.32.0.1":               {none, loopback, private},
		"192.168.0.1":              {private},
		"100.64.0.1":               {private},
		"198.18.0.1":               {private},
		"fd12:3456::1":             {private},
		"fec0::1":                  {private},
		"64:ff9b::10.0.0.1":        {private},
		"64:ff9b:1::1":             {private},
		"64:ff9b::8.8.8.8":         {none, loopback, private},
		"2002:a00:1::":             {private},
		"2002:7f00:1::":            {loopback, private},
		"169.254.169.254":          {},
		"::ffff:169.254.169.254":   {},
		"64:ff9b::169.254.169.254": {},
		"fe80::1":                  {},
		"fe80::1%eth0":             {},
		"fd00:ec2::254":            {},
		"100.100.100.200":          {},
		"168.63.129.16":            {},
		"0.0.0.0":                  {},
		"0.1.2.3":                  {},
		"::":                       {},
		"::127.0.0.1":              {},
		"224.0.0.1":                {},
		"ff02::1":                  {},
		"255.255.255.255":          {},
		"2001::1":                  {},
		"::ffff:0:169.254.169.254": {},
		"::ffff:0:8.8.8.8":         {},
		"5f00::1":                  {},
	} {
		for name, p := range profiles {
			err := p.CheckAddr(netip.MustParseAddr(addr))
			if got, want := err == nil, slices.Contains(allowed, name); got != want {
				t.Errorf("%s with %s: got %v, want allowed %v", addr, name, err, want)
			}
		}
	}
	if err := (provider.Profile{}).CheckAddr(netip.Addr{}); err == nil {
		t.Error("the zero address is allowed")
	}
}

func TestErrorRuleMatches(t *testing.T) {
	c, err := provider.New(map[string]provider.Profile{"acme": {TokenEndpoint: endpoint, Errors: []provider.ErrorRule{
		{Status: 400, Code: "Invalid_Grant", Description: `(?i)reasonable\s+timeframe`, Class: tokenbroker.ClassClockSkew},
		{Description: "Invalid Token!", Class: tokenbroker.ClassDeadGrant},
		{Status: 402, Class: tokenbroker.ClassConfiguration},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	p, _ := c.Profile("acme")
	for _, tt := range []struct {
		status            int
		code, description string
		want              int // index of the first rule that matches, -1 = none
	}{
		{400, "invalid_grant", "not in a Reasonable  timeframe", 0},
		{401, "invalid_grant", "not in a reasonable timeframe", -1},
		{400, "invalid_client", "not in a reasonable timeframe", -1},
		{400, "invalid_grant", "revoked", -1},
		{500, "", "x Invalid Token! y", 1},
		{402, "anything", "", 2},
	} {
		got := slices.IndexFunc(p.Errors, func(r provider.ErrorRule) bool { return r.Matches(tt.status, tt.code, tt.description) })
		if got != tt.want {
			t.Errorf("%d %s %q: got rule %d, want %d", tt.status, tt.code, tt.description, got, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("acme:\n  token_endpoint: https://login.example.com/token\n  grace: 1d2h\n"))
	f.Add([]byte("a: {token_endpoint: 'https://[::ffff:169.254.169.254]/', allow_private: true}"))
	f.Add([]byte("a: {token_endpoint: 'http://0x7f.1/', insecure_loopback: true}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		profiles, err := provider.Parse(data)
		if err != nil {
			return
		}
		c, err := provider.New(profiles)
		if err != nil {
			return
		}
		for _, name := range c.Names() {
			p, _ := c.Profile(name)
			if strings.HasPrefix(p.TokenEndpoint, "http:") && !p.InsecureLoopback {
				t.Errorf("%s: plain http accepted: %q", name, p.TokenEndpoint)
			}
		}
	})
}
