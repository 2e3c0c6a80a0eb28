package sandbox

import (
	"bytes"
	_ "embed" // of page.html
	"html/template"
	"net/http"
	"slices"
)

// The fields of the pages' forms.
const (
	requestField  = "request" // what hold returned
	accountField  = "account" // e-mail address
	passwordField = "password"
	grantedField  = "granted" // a scope that is granted; once for each
	decisionField = "decision"
	allow         = "allow"
	deny          = "deny"
)

// page is what the one template shows. Parts that are empty are left out.
type page struct {
	Title    string
	Issuer   string
	Text     string
	Problem  string // what was wrong with the last answer
	Action   string // where the form goes; "" = no form
	Request  string
	UserCode string
	AskCode  bool // ask for a user code
	Client   string
	Scopes   []string
	Accounts []Account
	Password bool // some account needs one
}

//go:embed page.html
var pageText string

// show renders a page that no other may frame, run scripts on or learn the address of.
func (v *visit) show(status int, p page) answer {
	if v.issuer != nil {
		p.Issuer = v.issuer.Name
	}
	return render(status, p)
}

func render(status int, p page) answer {
	var b bytes.Buffer
	t, err := template.New("page").Parse(pageText)
	if err == nil {
		err = t.Execute(&b, p)
	}
	if err != nil {
		panic("sandbox: page: " + err.Error())
	}
	return answer{status: status, body: b.Bytes(), cut: -1, header: http.Header{
		"Content-Type":            {"text/html; charset=utf-8"},
		"Content-Security-Policy": {"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"},
		"Cache-Control":           {"no-store"},
		"Referrer-Policy":         {"no-referrer"},
		"X-Content-Type-Options":  {"nosniff"},
	}}
}

func errorPage(e *oauthError) answer {
	a := render(e.status, page{Title: "This request can't be served", Text: e.Code + ": " + e.Description, Issuer: "?"})
	a.code = e.Code
	return a
}

func (i *issuer) needsPassword() bool {
	return slices.ContainsFunc(i.Accounts, func(a Account) bool { return a.Password != "" })
}

// consentPage asks who consents, to what, and whether at all.
func (v *visit) consentPage(id string, a *authorization, problem string) answer {
	status := http.StatusOK
	if problem != "" {
		status = http.StatusBadRequest
	}
	return v.show(status, page{
		Title: "Allow " + a.client.ID + "?", Text: "It asks for access to your account.", Problem: problem,
		Action: v.url(EndpointAuthorize), Request: id, Scopes: a.scopes, Accounts: v.issuer.Accounts, Password: v.issuer.needsPassword(),
	})
}

// answerConsent takes the answer to the consent page.
func (v *visit) answerConsent() answer {
	if v.form.err != nil {
		return errorPage(v.form.err)
	}
	id := v.form.get(requestField)
	a := v.issuer.requests[id]
	if a == nil || !v.now.Before(a.expiry) {
		return errorPage(badRequest("invalid_request", "the page has expired or was answered already"))
	}
	if v.form.get(decisionField) == deny {
		delete(v.issuer.requests, id)
		return v.sendBack(a, badRequest("access_denied", "the account said no"))
	}
	who, granted, problem := v.signedIn(a.scopes)
	if problem != "" {
		return v.consentPage(id, a, problem)
	}
	delete(v.issuer.requests, id)
	return v.consent(a, who, granted)
}

// signedIn reads who allows what. It says what is wrong with the answer, "" if nothing is.
func (v *visit) signedIn(asked []string) (who *Account, granted []string, problem string) {
	who = v.issuer.account(v.form.get(accountField))
	switch {
	case v.form.get(decisionField) != allow:
		return nil, nil, "Choose: allow or deny."
	case who == nil:
		return nil, nil, "There is no such account."
	case who.Password != "" && who.Password != v.form.get(passwordField):
		return nil, nil, "Account and password do not match."
	}
	for _, s := range asked { // in the order of the request
		if slices.Contains(v.form.values[grantedField], s) {
			granted = append(granted, s)
		}
	}
	if len(asked) > 0 && len(granted) == 0 {
		return nil, nil, "Allow at least one scope, or deny."
	}
	return who, granted, ""
}
