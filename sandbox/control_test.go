package sandbox_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

// control sends a request to the control handler.
func (w *world) control(method, path, body string) reply {
	w.t.Helper()
	r := httptest.NewRequestWithContext(w.t.Context(), method, "/control/"+path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	rec := httptest.NewRecorder()
	w.srv.ControlHandler().ServeHTTP(rec, r)
	out := reply{status: rec.Code, header: rec.Header(), text: rec.Body.String()}
	_ = json.Unmarshal(rec.Body.Bytes(), &out.json) // 404 is no JSON
	return out
}

func TestFaultsComeFromOutside(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{})
	w.control("POST", "faults", `{"issuer":"acme","kind":"error","code":"invalid_grant","times":2,"grant_type":"refresh_token"}`).want(t, 200, "")
	w.control("POST", "faults", `{"faults":[{"issuer":"acme","kind":"throttle","retry_after":"7s"},{"issuer":"acme","kind":"hang"}]}`).want(t, 200, "")
	token := w.seed()
	w.refresh(token).want(t, 400, "invalid_grant")
	got := w.control("GET", "faults?issuer=acme", "").want(t, 200, "")
	if !strings.Contains(got.text, `{"name":"error","does":"status 400, body","endpoint":"token","times":1}`) || !strings.Contains(got.text, `"name":"hang"`) {
		t.Errorf("got %s", got.text)
	}
	w.refresh(token).want(t, 400, "invalid_grant")
	if got := w.refresh(token); got.status != 429 || got.header.Get("Retry-After") != "7" {
		t.Errorf("got %d %v", got.status, got.header)
	}
	if got := w.control("DELETE", "faults?issuer=acme", ""); got.json["cleared"] != 1.0 {
		t.Errorf("got %s, want one cleared", got.text)
	}
	w.refresh(token).want(t, 200, "")
}

func TestTheJournalIsReadFromOutside(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{})
	token := w.seed()
	access := w.refresh(token).str("access_token")
	w.refresh(token).want(t, 400, "invalid_grant")
	got := w.control("GET", "journal?issuer=acme&grant_type=refresh_token&code=invalid_grant&status=400&client_id=post&endpoint=token", "").want(t, 200, "")
	entries := got.json["entries"].([]any)
	if got.json["count"] != 1.0 || len(entries) != 1 || entries[0].(map[string]any)["refresh_token_fingerprint"] != sandbox.Fingerprint(token) {
		t.Errorf("got %s", got.text)
	}
	all := w.control("GET", "journal", "")
	if all.json["count"] != 2.0 || strings.Contains(all.text, token) || strings.Contains(all.text, access) || strings.Contains(all.text, "s3cret") {
		t.Errorf("got %s", all.text)
	}
	if got := w.control("GET", "journal?unanswered=true", ""); got.json["count"] != 0.0 {
		t.Errorf("got %s", got.text)
	}
}

func TestTheServerIsSteeredFromOutside(t *testing.T) {
	iss := people()
	iss.ServiceAccounts = []sandbox.ServiceAccount{{Email: robot}}
	w := newWorld(t, iss)
	token := w.control("POST", "seed", `{"issuer":"acme","client_id":"post","scopes":["read"]}`).want(t, 200, "").str("refresh_token")
	w.control("POST", "rotation", `{"issuer":"acme","rotation":"grace","grace":"1m"}`).want(t, 200, "")
	w.refresh(token).want(t, 200, "")
	w.refresh(token).want(t, 200, "") // forgiven
	w.control("POST", "advance", `{"by":"1m"}`).want(t, 200, "")
	w.refresh(token).want(t, 400, "invalid_grant")
	token = w.seed()
	if got := w.control("POST", "revoke", `{"token":"`+token+`"}`); got.json["known"] != true {
		t.Errorf("got %s", got.text)
	}
	w.refresh(token).want(t, 400, "invalid_grant")
	if got := w.control("POST", "revoke", `{"token":"x","alone":true}`); got.json["known"] != false {
		t.Errorf("got %s", got.text)
	}

	ask, err := json.Marshal(map[string]any{"issuer": "acme", "url": w.asking(), "account": "ann@corp.test", "scopes": []string{"read"}})
	if err != nil {
		t.Fatal(err)
	}
	to, err := url.Parse(w.control("POST", "authorize", string(ask)).want(t, 200, "").str("redirect"))
	if err != nil || w.exchange(to.Query().Get("code")).want(t, 200, "").str("scope") != "read" {
		t.Errorf("got %v, %v", to, err)
	}
	if got := w.control("POST", "authorize", strings.Replace(string(ask), `{`, `{"deny":true,`, 1)); !strings.Contains(got.str("redirect"), "access_denied") {
		t.Errorf("got %s", got.text)
	}
	d, denied := w.begin(), w.begin()
	w.control("POST", "activate", `{"issuer":"acme","user_code":"`+d.str("user_code")+`","account":"ann@corp.test"}`).want(t, 200, "")
	w.poll(d).want(t, 200, "")
	w.control("POST", "activate", `{"issuer":"acme","user_code":"`+denied.str("user_code")+`","deny":true}`).want(t, 200, "")
	w.poll(denied).want(t, 400, "access_denied")
	w.control("POST", "auto-approve", `{"issuer":"acme","account":"bob@corp.test"}`).want(t, 200, "")
	if status, _ := w.follow(w.asking()); status != 303 {
		t.Errorf("got %d, want 303", status)
	}
	if got := w.control("POST", "key", `{"issuer":"acme","email":"`+robot+`","base":"https://x.test"}`).want(t, 200, ""); got.str("token_uri") != "https://x.test/acme/token" {
		t.Errorf("got %s", got.text)
	}
}

func TestReleaseComesFromOutside(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{})
	w.srv.Fail("acme", sandbox.Fault{Hang: true})
	done := make(chan reply)
	go func() {
		out, _ := w.try(w.refreshing(w.seed()))
		done <- out
	}()
	for w.srv.Count(sandbox.Filter{Unanswered: true}) == 0 {
		time.Sleep(time.Millisecond)
	}
	w.control("POST", "release", `{"issuer":"acme"}`).want(t, 200, "")
	(<-done).want(t, 200, "")
}

func TestControlRefusesWhatItDoesNotUnderstand(t *testing.T) {
	for _, row := range []struct{ method, path, body string }{
		{"POST", "faults", `{"issuer":"acme","kind":"magic"}`},
		{"POST", "faults", `{"issuer":"nobody","kind":"hang"}`},
		{"POST", "faults", `{"issuer":"acme","kind":"hang","tims":2}`},
		{"POST", "faults", `{"issuer":"acme","kind":"hang"} {}`},
		{"POST", "faults", `{"issuer":"acme","kind":"latency","delay":"5"}`},
		{"POST", "faults", ``},
		{"GET", "faults?issuer=nobody", ""},
		{"DELETE", "faults?issuer=nobody", ""},
		{"POST", "release", `{"issuer":"nobody"}`},
		{"POST", "advance", `{"by":5}`},
		{"POST", "rotation", `{"issuer":"acme","rotation":"sometimes"}`},
		{"POST", "rotation", `{"issuer":"nobody"}`},
		{"POST", "seed", `{"issuer":"acme","client_id":"nobody"}`},
		{"POST", "revoke", `{}`},
		{"POST", "auto-approve", `{"issuer":"acme","account":"nobody"}`},
		{"POST", "authorize", `{"issuer":"acme","url":"https://sandbox.test/acme/token"}`},
		{"POST", "authorize", `{"issuer":"nobody"}`},
		{"POST", "activate", `{"issuer":"acme","user_code":"x","account":"user@sandbox.test"}`},
		{"POST", "activate", `{"issuer":"nobody","deny":true}`},
		{"POST", "key", `{"issuer":"acme","email":"nobody"}`},
		{"GET", "journal?since=1", ""},
		{"GET", "journal?status=x", ""},
		{"GET", "journal?unanswered=x", ""},
	} {
		w := newWorld(t, sandbox.Issuer{})
		if got := w.control(row.method, row.path, row.body); got.status != 400 || got.str("error") == "" {
			t.Errorf("%s %s %s: got %d %s, want 400", row.method, row.path, row.body, got.status, got.text)
		}
	}
}

func TestAWebPageCanNotSteer(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{})
	for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded"} {
		for _, method := range []string{"POST", "DELETE"} {
			r := httptest.NewRequestWithContext(t.Context(), method, "/control/faults?issuer=acme", strings.NewReader(`{"issuer":"acme","kind":"hang"}`))
			r.Header.Set("Content-Type", kind)
			rec := httptest.NewRecorder()
			w.srv.ControlHandler().ServeHTTP(rec, r)
			if rec.Code != http.StatusUnsupportedMediaType || w.srv.Clear("acme") != 0 {
				t.Errorf("%s as %q: got %d", method, kind, rec.Code)
			}
		}
	}
	if got := w.control("GET", "release", ""); got.status != 405 {
		t.Errorf("got %d, want 405", got.status)
	}
	if got := w.do(w.request("GET", "/control/journal", "")); got.status != 404 {
		t.Errorf("got %d from the server itself, want 404", got.status)
	}
}
