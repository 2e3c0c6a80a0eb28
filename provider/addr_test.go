package provider_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/provider"
)

// Each is refused at every endpoint, before a name is ever asked for.
func TestS26WhatLeadsInsideIsRefusedInAConfiguration(t *testing.T) {
	for _, at := range []string{
		"https://127.0.0.1", "https://127.1", "https://2130706433", "https://0x7f000001", "https://0177.0.0.1", "https://0x7f.0.0.1", "https://localhost",
		"https://idp.localhost", "https://169.254.169.254", "https://2852039166", "https://[::ffff:169.254.169.254]", "https://[::ffff:a9fe:a9fe]",
		"https://[fe80::1%25eth0]", "https://[2606:4700::1111%25eth0]", "https://[64:ff9b::a9fe:a9fe]", "https://[64:ff9b::7f00:1]",
		"https://[2002:a9fe:a9fe::1]", "https://[::]", "https://0.0.0.0", "https://224.0.0.1", "https://[ff02::1]", "https://100.64.0.1", "https://10.0.0.1",
		"https://172.16.0.1", "https://192.168.0.1", "https://[fd00::1]", "https://[::1]", "https://255.255.255.255", "https://100.100.100.200",
		"https://login.example.com@169.254.169.254", "https://user:pass@login.example.com", "http://login.example.com", "http://127.0.0.1",
		"ftp://login.example.com", "//login.example.com", "https://", "https://login.example.com:0", "https://login.example.com:99999",
		"https://login.example.com\t.evil", "https://lоgin.example.com", "https://169。254。169。254",
	} {
		for field, p := range map[string]provider.Profile{
			"token_endpoint":         {TokenEndpoint: at + "/x"},
			"refresh_endpoint":       {TokenEndpoint: endpoint, RefreshEndpoint: at + "/x"},
			"revocation_endpoint":    {TokenEndpoint: endpoint, RevocationEndpoint: at + "/x"},
			"introspection_endpoint": {TokenEndpoint: endpoint, IntrospectionEndpoint: at + "/x"},
			"jwks_uri":               {TokenEndpoint: endpoint, JWKSURI: at + "/x"},
			"userinfo_endpoint":      {TokenEndpoint: endpoint, UserinfoEndpoint: at + "/x"},
			"issuer":                 {TokenEndpoint: endpoint, Issuer: at, Discover: new(true)},
		} {
			_, err := provider.New(map[string]provider.Profile{"acme": p})
			if err == nil || !strings.Contains(err.Error(), field) {
				t.Errorf("%s: %q: got %v, want it refused", field, at, err)
			}
		}
	}
}

func TestS26ADocumentMayNotNameWhatAConfigurationMayNot(t *testing.T) {
	const issuer = "https://login.example.com"
	c, err := provider.New(map[string]provider.Profile{"acme": {Issuer: issuer, Discover: new(true)}})
	if err != nil {
		t.Fatal(err)
	}
	p, _ := c.Profile("acme")
	for _, at := range []string{"https://169.254.169.254/t", "https://[::ffff:169.254.169.254]/t", "https://2852039166/t", "http://login.example.com/t",
		"https://login.example.com@127.0.0.1/t", "https://other.example.com/t"} {
		filled, refused, ok := p.Discovered(provider.Metadata{Issuer: issuer, Endpoints: map[string]string{"token_endpoint": at, "jwks_uri": at}})
		if !ok || len(refused) != 2 || filled.TokenEndpoint != "" || filled.JWKSURI != "" {
			t.Errorf("%q: got %q, %q, %v; want neither taken", at, filled.TokenEndpoint, filled.JWKSURI, refused)
		}
	}
}

// Where clouds serve machine credentials over IPv6 is in blocks that are a company's own otherwise: allow_private must not open them.
func TestS26NoSettingAllowsTheCredentialsOfTheMachine(t *testing.T) {
	own := provider.Profile{AllowPrivate: true, InsecureLoopback: true}
	for _, addr := range []string{
		"169.254.169.254", "169.254.170.2", "fe80::a9fe:a9fe", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", // any
		"fd00:ec2::254", "fd00:ec2::23", "fd00:ec2:0:1::1", // AWS: instances, EKS pods, its other services
		"fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42", "fd00:a9fe:a9fe::1", // Google, Oracle, Scaleway, Linode
		"100.100.100.200", "fd00:100::100:200", "192.0.0.192", "168.63.129.16", // Alibaba, Oracle, Azure
		"64:ff9b:1::a9fe:a9fe", "64:ff9b:1:7::6464:64c8", "64:ff9b:1::e000:1", // by a translator of one's own
	} {
		if err := own.CheckAddr(netip.MustParseAddr(addr)); err == nil || !strings.Contains(err.Error(), "which no token endpoint has") {
			t.Errorf("%s: got %v, want it refused for good", addr, err)
		}
	}
	for _, addr := range []string{"10.0.0.1", "fd00::1", "fd00:ec3::254", "fd20:ce::253", "127.0.0.1", "64:ff9b:1::a00:1", "64:ff9b:1::cb00:7107"} {
		if err := own.CheckAddr(netip.MustParseAddr(addr)); err != nil {
			t.Errorf("%s: got %v, want it allowed with allow_private", addr, err)
		}
		if err := (provider.Profile{}).CheckAddr(netip.MustParseAddr(addr)); err == nil {
			t.Errorf("%s: got it allowed without allow_private", addr)
		}
	}
}

// A proxy may be inside, but is no more where the machine's credentials are than a provider is, and is written as plainly.
func TestS26AProxyThatIsNoneIsRefusedInAConfiguration(t *testing.T) {
	for _, at := range []string{"http://169.254.169.254:80", "http://[::ffff:169.254.169.254]:80", "http://[fe80::1]:3128", "http://[fe80::1%25eth0]:3128",
		"http://0.0.0.0:3128", "http://2852039166:80", "http://[fd20:ce::254]", "http://proxy.example.com:0", "http://prоxy.example.com"} {
		_, err := provider.New(map[string]provider.Profile{"acme": {TokenEndpoint: endpoint, Proxy: at}})
		if err == nil || !strings.Contains(err.Error(), "proxy: ") {
			t.Errorf("%q: got %v, want it refused", at, err)
		}
	}
	for _, at := range []string{"http://10.0.0.1:3128", "http://127.0.0.1:3128", "http://localhost:3128", "https://[fd00::1]", "http://proxy.corp.example:3128", "http://proxy"} {
		if _, err := provider.New(map[string]provider.Profile{"acme": {TokenEndpoint: endpoint, Proxy: at}}); err != nil {
			t.Errorf("%q: got %v, want it taken", at, err)
		}
	}
}
