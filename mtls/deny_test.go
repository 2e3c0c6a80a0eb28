package mtls_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker/mtls"
)

// denyFile writes a deny list. It returns its path.
func denyFile(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "deny.txt")
	rewrite(t, path, text)
	return path
}

func rewrite(t testing.TB, path, text string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

func denyList(t testing.TB, text string) *mtls.DenyList {
	t.Helper()
	d, err := mtls.OpenDenyList(denyFile(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestADenyListDeniesWhatItsLinesSay(t *testing.T) {
	peer := mtls.Peer{Identity: workerID, Serial: "4f3a", Issuer: `CN=CA \#1,O=Acme`, Fingerprint: strings.Repeat("5d", 32)}
	other := mtls.Peer{Identity: partner, Serial: "4f3a", Issuer: "CN=CA 2", Fingerprint: strings.Repeat("6e", 32)}
	byName := mtls.Peer{Identity: "dns:worker", Serial: "4f3a", Issuer: "CN=CA 2"}
	for line, want := range map[string][3]bool{
		"4f3a":                             {true, true, true},
		"4F3A":                             {true, true, true},
		"00:4f:3a":                         {true, true, true},
		"004f3a\t# with a reason":          {true, true, true},
		"4f3a\r":                           {true, true, true},
		"4f3b":                             {false, false, false},
		"4f3":                              {false, false, false},
		"4f3a example.org":                 {true, false, false},
		"4f3a   partner.example   # gone":  {false, true, false},
		"4f3a issuer:CN=CA 2":              {false, true, true},
		"4f3a issuer:CN=CA":                {false, false, false},
		`4f3a issuer:CN=CA \#1,O=Acme`:     {true, false, false},
		`4f3a issuer:O=Acme,CN=CA \#1`:     {false, false, false},
		"4f3a\tissuer:cn=C\\41 2\r":        {false, true, true},
		"sha256:" + peer.Fingerprint:       {true, false, false},
		"# 4f3a":                           {false, false, false},
		"   ":                              {false, false, false},
		"1\n2 example.org\n4f3a # comment": {true, true, true},
	} {
		d := denyList(t, line+"\n")
		for i, p := range []mtls.Peer{peer, other, byName} {
			err := d.Check(p)
			if got := errors.Is(err, mtls.ErrDenied); got != want[i] || (err != nil) != want[i] {
				t.Errorf("%q of %s: got %v, want it denied: %v", line, p.Identity, err, want[i])
			}
		}
	}
	if err := (*mtls.DenyList)(nil).Check(peer); err != nil {
		t.Errorf("without a list: got %v", err)
	}
	if err := denyList(t, "4f3a\n\n# x\n4f3b\n4f3a example.org\n").Check(peer); !strings.Contains(err.Error(), "line 1") {
		t.Errorf("got %v, want the line named", err)
	}
}

func TestADenyListIsReadStrictlyAndWhole(t *testing.T) {
	for text, want := range map[string]string{
		"":                                          "empty",
		"4f3a":                                      "half written",
		"4f3a\n4f3":                                 "half written",
		"4f3a\nxyz\n":                               "line 2: \"xyz\" is not a serial",
		"0\n":                                       "line 1",
		"-4f\n":                                     "line 1",
		"0x4f\n":                                    "line 1",
		"4f:3\n":                                    "line 1",
		"4f::3a\n":                                  "line 1",
		strings.Repeat("f", 42) + "\n":              "line 1",
		"4f3a Example.org\n":                        "neither a trust domain",
		"4f3a spiffe://example.org/job\n":           "neither a trust domain",
		"4f3a example.org partner\n":                "neither a trust domain",
		"4f3a issuer:\n":                            "neither a trust domain",
		"4f3a issuer:CN=CA # gone\n":                "has no comment",
		"4f3a issuer:CN=CA #1\n":                    `write \#`,
		"4f3a issuer:C = DE, O = Acme\n":            "not known",
		"4f3a issuer:C=DE, O=Acme\n":                "not known",
		"4f3a issuer:CN= CA\n":                      "a blank at the begin",
		"4f3a issuer:CN=CA \n":                      "a blank at the begin or end",
		"4f3a issuer:/C=DE/O=Acme\n":                "\"/C\" of the issuer is not known",
		"4f3a issuer:favouriteDrink=tea\n":          "favouriteDrink",
		"4f3a issuer:Acme CA\n":                     "is not an attribute",
		"4f3a issuer:CN=a,\n":                       "is not an attribute",
		"4f3a issuer:CN=\"a\"\n":                    "needs a",
		"4f3a issuer:CN=a\\zz\n":                    "two hex digits",
		"4f3a issuer:CN=a\\\n":                      "two hex digits",
		"4f3a issuer:CN=a\\C\n":                     "two hex digits",
		"4f3a issuer:CN=a\\C3\n":                    "not UTF-8",
		"4f3a issuer:CN=a\tb\n":                     "needs a",
		"4f3a issuer:1.2.3=#0c\n":                   "the hex of a value",
		"4f3a issuer:1.2.3=#0c0161ff\n":             "the hex of a value",
		"x issuer:CN=a\n":                           "not a serial number",
		"4f3a# no blank before\n":                   "line 1",
		"sha256:5d\n":                               "64 lower-case",
		"sha256:" + strings.Repeat("5D", 32) + "\n": "64 lower-case",
		"x\ny\n":                                    "line 2",
		strings.Repeat("x\n", 5000):                 "and more",
	} {
		_, err := mtls.OpenDenyList(denyFile(t, text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %.200v, want an error with %q", text, err, want)
		}
		if err != nil && len(err.Error()) > 2000 {
			t.Errorf("%.40q: the error has %d bytes", text, len(err.Error()))
		}
	}
	if _, err := mtls.OpenDenyList(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file: got %v", err)
	}
}

func TestADenyListKeepsTheLastGoodOne(t *testing.T) {
	path := denyFile(t, "4f3a\n")
	d, err := mtls.OpenDenyList(path)
	if err != nil {
		t.Fatal(err)
	}
	peer, before := mtls.Peer{Identity: workerID, Serial: "4f3a"}, d.Revision()
	for _, bad := range []string{"", "4f", "garbage\n"} {
		rewrite(t, path, bad)
		if changed, err := d.Reload(); changed || err == nil || d.Err() == nil {
			t.Errorf("%q: got %v, %v, Err %v, want it refused", bad, changed, err, d.Err())
		}
		if d.Check(peer) == nil || d.Revision() != before {
			t.Errorf("%q: the list in force is gone", bad)
		}
	}
	rewrite(t, path, "# nobody\n")
	if changed, err := d.Reload(); !changed || err != nil || d.Err() != nil || d.Revision() == before || d.Len() != 0 || d.Check(peer) != nil {
		t.Errorf("a list of nobody: got %v, %v, Err %v, %d lines", changed, err, d.Err(), d.Len())
	}
}

func TestADeniedSerialIsRefusedInTheHandshake(t *testing.T) {
	ca := newCA(t, "dev")
	p := worker(t, ca)
	path := denyFile(t, "# nobody\n")
	d, err := mtls.OpenDenyList(path)
	if err != nil {
		t.Fatal(err)
	}
	s, c := source(t, broker(t, ca), ca.CertPEM()), source(t, p, ca.CertPEM())
	gate := s.Gate(mtls.ServerOptions{Deny: d})
	let := handshake(t, gate.TLS(), clientTLS(t, c, brokerID))
	if let.server != nil || let.client != nil {
		t.Fatalf("before: server %v, client %v", let.server, let.client)
	}
	before := gate.Revision()
	rewrite(t, path, fmt.Sprintf("%x example.org\n", parse(t, p.cert).SerialNumber))
	if changed, err := d.Reload(); !changed || err != nil || gate.Revision() == before {
		t.Fatalf("reload: got %v, %v", changed, err)
	}
	if o := handshake(t, gate.TLS(), clientTLS(t, c, brokerID)); !errors.Is(o.server, mtls.ErrDenied) || o.client == nil {
		t.Errorf("after: server %v, client %v, want it denied", o.server, o.client)
	}
	if _, err := gate.Peer(let.state); !errors.Is(err, mtls.ErrDenied) {
		t.Errorf("the open connection: got %v, want it denied", err)
	}
	other := source(t, worker(t, ca), ca.CertPEM())
	if o := handshake(t, gate.TLS(), clientTLS(t, other, brokerID)); o.server != nil || o.client != nil {
		t.Errorf("another certificate of the same identity: server %v, client %v", o.server, o.client)
	}
}

func TestAWatchedDenyListIsTakenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := denyFile(t, "# nobody\n")
		d, err := mtls.OpenDenyList(path)
		if err != nil {
			t.Fatal(err)
		}
		news := watched(t, d, time.Second)
		rewrite(t, path, "4f3a\n")
		time.Sleep(1500 * time.Millisecond)
		if got := news(); len(got) != 1 || got[0] != nil || d.Len() != 1 {
			t.Errorf("news: got %v and %d lines, want one nil and one line", got, d.Len())
		}
		rewrite(t, path, "?\n")
		time.Sleep(5 * time.Second)
		if got := news(); len(got) != 1 || got[0] == nil || d.Len() != 1 {
			t.Errorf("news of garbage: got %v and %d lines, want one error and one line", got, d.Len())
		}
	})
}

// FuzzDenyList gives any text: no panic, and what opens denies by lines that are in it.
func FuzzDenyList(f *testing.F) {
	for _, text := range []string{"4f3a\n", "4f:3a example.org # x\n", "sha256:" + strings.Repeat("5d", 32) + "\n", "4f3a issuer:CN=a\n", "4f3a issuer:CN=\\C3\\BC+1.2=#0c0161,O=\\#\n", "# x\n\n", "4f3a"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := mtls.OpenDenyList(denyFile(t, text))
		if err == nil && d.Len() > strings.Count(text, "\n") {
			t.Errorf("got %d lines of %q", d.Len(), text)
		}
	})
}
