package web

import (
	"bytes"
	"embed"
	"net/http"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/consent"
)

var (
	//go:embed templates/*.html
	files embed.FS
	//go:embed static/style.css
	styleSheet []byte
)

// message is a page that only says something.
type message struct {
	Title  string
	Tone   string // good, wait, calm or bad
	Text   []string
	Code   string // error code, for whoever is asked about it
	Reload bool   // it changes by itself
}

// invitation is the page of a link.
type invitation struct {
	Title      string
	Action     string // where the button leads
	Token      string
	Provider   string
	App        string
	Credential string
	BegunBy    string
	Account    string
	Host       string // of the provider
	Until      string
	Scopes     []consent.Scope
}

func invitationPage(i consent.Invitation, action, token string) invitation {
	return invitation{Title: "Connect " + i.Provider, Action: action, Token: token, Provider: i.Provider, App: i.App, Credential: i.Consent.Credential,
		BegunBy: i.Consent.BegunBy, Account: i.Account, Host: i.Origin, Until: i.Consent.Expiry.UTC().Format("15:04 UTC"), Scopes: i.Scopes}
}

// Why it goes no further. They are the last part of a path.
const (
	stopNothing  = "not-found"
	stopExpired  = "expired"
	stopUsed     = "used"
	stopBrowser  = "other-browser"
	stopCallback = "not-from-provider"
	stopForm     = "form"
	stopMethod   = "method"
	stopHost     = "host"
	stopRate     = "rate"
	stopError    = "error"
)

// stops are the pages of consents that go no further.
var stops = map[string]struct {
	status int
	page   message
}{
	stopNothing: {http.StatusNotFound, message{Title: "There is nothing here", Tone: "bad", Text: []string{
		"The link is incomplete, or it was never one. Copy all of it, to the last character.", "If it still does not work, ask whoever sent it for a new one."}}},
	stopExpired: {http.StatusGone, message{Title: "This link is too old", Tone: "bad", Text: []string{
		"A link works for 30 minutes, and signing in may take 10. Nothing was connected.", "Ask whoever sent it for a new one."}}},
	stopUsed: {http.StatusGone, message{Title: "This link was used", Tone: "bad", Text: []string{
		"A link works once, and in the browser in which it was begun.", "If that was not you, tell whoever sent it: they can cancel what came of it. If it was, there is no more to do."}}},
	stopBrowser: {http.StatusForbidden, message{Title: "This was begun in another browser", Tone: "bad", Text: []string{
		"Only the browser in which you pressed the button can finish. Nothing was connected here.", "Open the link again where you began, or ask for a new one. Cookies have to be allowed for this site."}}},
	stopCallback: {http.StatusBadRequest, message{Title: "This did not come from the provider", Tone: "bad", Text: []string{
		"The answer does not belong to what was asked, or it was answered before. Nothing was connected.", "Open the link that you were sent once more."}}},
	stopForm: {http.StatusForbidden, message{Title: "The page was open for too long", Tone: "bad", Text: []string{
		"Open the link that you were sent once more, and press the button again. Cookies have to be allowed for this site."}}},
	stopMethod: {http.StatusMethodNotAllowed, message{Title: "That can't be done here", Tone: "bad", Text: []string{"Open the link that you were sent."}}},
	stopHost: {http.StatusMisdirectedRequest, message{Title: "This is not the right address", Tone: "bad", Text: []string{
		"Open the link exactly as you were sent it."}}},
	stopRate: {http.StatusTooManyRequests, message{Title: "One moment, please", Tone: "wait", Text: []string{
		"Too many requests came from your network. Try again in a few seconds."}}},
	stopError: {http.StatusServiceUnavailable, message{Title: "Something went wrong on our side", Tone: "bad", Text: []string{
		"Nothing was connected, as far as we know. Try the link again in a few minutes.", "If that does not help, tell whoever sent it; the log of the broker says more."}}},
}

// outcomePage says how a consent stands. It names no account: whoever looks may not be the one who consented.
func outcomePage(c tokenbroker.Consent) message {
	switch c.State {
	case tokenbroker.ConsentAwaiting:
		return message{Title: "Thank you, that is all", Tone: "good", Text: []string{"You said yes, and the provider confirmed it.",
			"Whoever sent you the link now checks that it was the right account. Until then nothing is used. You can close this page."}}
	case tokenbroker.ConsentDone:
		return message{Title: "Connected", Tone: "good", Text: []string{"The account is connected to " + c.Credential + ". You can close this page."}}
	case tokenbroker.ConsentDenied:
		return message{Title: "You said no", Tone: "calm", Code: c.Code, Text: []string{"Nothing was connected, and the link can't be used any more.",
			"If that was a mistake, or an administrator has to allow it first, ask whoever sent it for a new one."}}
	case tokenbroker.ConsentExpired:
		return stops[stopExpired].page
	case tokenbroker.ConsentCancelled:
		return message{Title: "This was cancelled", Tone: "calm", Text: []string{"Whoever sent the link took it back. What you allowed is ended at the provider."}}
	case tokenbroker.ConsentFailed:
		return failedPage(c)
	case tokenbroker.ConsentPending:
	}
	return message{Title: "One moment, please", Tone: "wait", Reload: true, Text: []string{"The provider is being asked. Look again in a few seconds."}}
}

func failedPage(c tokenbroker.Consent) message {
	m := message{Title: "That did not work", Tone: "bad", Code: c.Code}
	switch c.Code {
	case "account_mismatch":
		m.Title = "That was another account"
		m.Text = []string{"The link is for one account alone, and you signed in with another. What you allowed is ended again.",
			"Ask for a new link, and sign in with the account that its page names."}
	case "account_not_named":
		m.Text = []string{"The provider does not say whose account it is, and the link is for one account alone. What you allowed is ended again."}
	default:
		m.Text = []string{"The provider refused at the last step. Nothing was connected.", "Tell whoever sent you the link; the code below helps them."}
	}
	return m
}

// say shows one of the stops.
func (h *Handler) say(w http.ResponseWriter, why string) {
	s := stops[why]
	h.render(w, s.status, "message", s.page)
}

func (h *Handler) render(w http.ResponseWriter, status int, name string, page any) {
	var b bytes.Buffer
	if err := h.templates.ExecuteTemplate(&b, name, page); err != nil {
		h.log.Error("a page can't be made", "page", name, "error", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}
