package web

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/consent"
)

// The cookies. The prefix has browsers take them over https from this host alone.
const (
	formCookie    = "__Host-consent-form" // ties the form to the browser that was shown it
	doneCookie    = "__Host-consent-done" // which consent /consent/done speaks of
	browserCookie = "__Host-consent-"     // with the id of a consent: proves that this browser pressed the button
	cookieLife    = 45 * time.Minute      // a link's half-hour, the ten minutes at the provider, and a look at the outcome
	tokenField    = "token"
)

// invite shows what a link asks for.
func (h *Handler) invite(w http.ResponseWriter, r *http.Request) {
	link := r.PathValue("link")
	i, err := h.consents.Invitation(r.Context(), link, keeps(r))
	if err != nil {
		h.stop(w, err)
		return
	}
	value := cookie(r, formCookie)
	if value == "" {
		value = rand.Text() + rand.Text()
		bake(w, formCookie, value, cookieLife)
	}
	h.protect(w.Header(), leadsTo(i.Origin))
	h.render(w, http.StatusOK, "consent", invitationPage(i, r.URL.Path, formToken(value, link)))
}

// leadsTo is where the button may lead besides. Chromium holds a form to this over all redirects, and a provider may send people on to sign in
// at another host before it shows a page of its own, so one origin is not enough. Plain http is a provider of development.
func leadsTo(origin string) string {
	if strings.HasPrefix(origin, "https://") {
		return "https:"
	}
	return origin
}

// formToken is what the form of a link carries for the browser with that cookie. Who can't read the cookie can't make one.
func formToken(cookie, link string) string {
	sum := sha256.Sum256([]byte(cookie + "\n" + link))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// depart is the button.
func (h *Handler) depart(w http.ResponseWriter, r *http.Request) {
	link := r.PathValue("link")
	if err := r.ParseForm(); err != nil {
		h.say(w, stopForm)
		return
	}
	value := cookie(r, formCookie)
	ours := value != "" && subtle.ConstantTimeCompare([]byte(r.PostForm.Get(tokenField)), []byte(formToken(value, link))) == 1
	if site := r.Header.Get("Sec-Fetch-Site"); !ours || site != "" && site != "same-origin" {
		h.say(w, stopForm)
		return
	}
	d, err := h.consents.Depart(r.Context(), link, keeps(r))
	if err != nil {
		h.stop(w, err)
		return
	}
	bake(w, browserCookie+d.ConsentID, d.Browser.Reveal(), cookieLife)
	goOn(w, d.URL)
}

// callback takes the provider's answer, and goes on to a URL that holds nothing of it.
func (h *Handler) callback(w http.ResponseWriter, r *http.Request) {
	c, err := h.consents.Return(r.Context(), r.URL.RawQuery, keeps(r))
	if err != nil {
		goOn(w, stopPath+h.reason(err))
		return
	}
	bake(w, doneCookie, c.ID, cookieLife)
	goOn(w, donePath)
}

// done says how a consent stands to the browser that went through it.
func (h *Handler) done(w http.ResponseWriter, r *http.Request) {
	id := cookie(r, doneCookie)
	c, err := h.consents.Outcome(r.Context(), id, keeps(r)(id))
	if err != nil {
		h.stop(w, err)
		return
	}
	h.render(w, http.StatusOK, "message", outcomePage(c))
}

// stopped says why it went no further.
func (h *Handler) stopped(w http.ResponseWriter, r *http.Request) {
	why := r.PathValue("why")
	if _, ok := stops[why]; !ok {
		why = stopNothing
	}
	h.say(w, why)
}

func (h *Handler) style(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	_, _ = w.Write(styleSheet)
}

// stop shows the page of an error.
func (h *Handler) stop(w http.ResponseWriter, err error) { h.say(w, h.reason(err)) }

// reason is the page of an error. What is behind one that is the broker's own is for the log.
func (h *Handler) reason(err error) string {
	for _, known := range []struct {
		err error
		why string
	}{
		{consent.ErrNoLink, stopNothing}, {consent.ErrLinkExpired, stopExpired}, {consent.ErrLinkUsed, stopUsed},
		{consent.ErrOtherBrowser, stopBrowser}, {consent.ErrBadCallback, stopCallback}, {tokenbroker.ErrNotFound, stopNothing},
	} {
		if errors.Is(err, known.err) {
			return known.why
		}
	}
	h.log.Error("a consent page failed", "error", err)
	return stopError
}

// goOn redirects with GET. Browsers put no trace of the request that is left into their history.
func goOn(w http.ResponseWriter, to string) {
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusSeeOther)
}

// keeps reads what a browser keeps of consents.
func keeps(r *http.Request) func(id string) tokenbroker.Secret {
	return func(id string) tokenbroker.Secret { return tokenbroker.NewSecret(cookie(r, browserCookie+id)) }
}

func cookie(r *http.Request, name string) string {
	if c, err := r.Cookie(name); err == nil {
		return c.Value
	}
	return ""
}

// bake sets a cookie. Lax, not Strict: the browser has to show it when the provider sends it back.
func bake(w http.ResponseWriter, name, value string, life time.Duration) {
	http.SetCookie(w, &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: int(life.Seconds()), Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}
