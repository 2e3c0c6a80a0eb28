package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// ending is how a consent ended, or how far it got.
type ending struct {
	begun   *tokenbrokerv1.BeginConsentResponse
	consent *tokenbrokerv1.Consent
	cred    *tokenbrokerv1.Credential // nil: the grant has not taken effect
}

// consent has an account consented, in the way that the flags say.
func (s *session) consent(ctx context.Context, cn *connection, cred *tokenbrokerv1.Credential) (*ending, error) {
	req := &tokenbrokerv1.BeginConsentRequest{Credential: cn.name, ExpectAccount: cn.expect, ReplaceAccount: cn.replace, Scopes: cn.spec.GetScopes()}
	switch {
	case cn.device:
		req.Flow = tokenbrokerv1.ConsentFlow_CONSENT_FLOW_DEVICE
		return s.begin(ctx, req, s.byDevice)
	case cn.link:
		req.Flow = tokenbrokerv1.ConsentFlow_CONSENT_FLOW_LINK
		return s.byLink(ctx, cn, req)
	case cn.noBrowser:
		req.Flow = tokenbrokerv1.ConsentFlow_CONSENT_FLOW_PASTE
		return s.begin(ctx, req, s.byPaste)
	}
	req.Flow = tokenbrokerv1.ConsentFlow_CONSENT_FLOW_LOOPBACK
	return s.byBrowser(ctx, cn, cred.GetSpec().GetProvider(), req)
}

// begin begins a consent and goes on with it. What comes to nothing is cancelled, so that nobody can complete it later.
func (s *session) begin(ctx context.Context, req *tokenbrokerv1.BeginConsentRequest,
	goOn func(context.Context, *tokenbrokerv1.BeginConsentResponse) (*ending, error)) (*ending, error) {
	begun, err := call(ctx, s, s.consents.BeginConsent, req)
	if err != nil {
		return nil, err
	}
	s.leave = func() { s.cancel(ctx, begun.GetConsent().GetConsentId()) }
	defer func() { s.leave = nil }()
	end, err := goOn(ctx, begun)
	if err != nil {
		s.leave()
		return nil, err
	}
	end.begun = begun
	return end, end.failed()
}

// cancel ends a consent that nobody is going to complete, also after ctx has ended. That it is over already is no error.
func (s *session) cancel(ctx context.Context, id string) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), min(undoing, s.timeout))
	defer stop()
	if _, err := s.consents.CancelConsent(ctx, &tokenbrokerv1.CancelConsentRequest{ConsentId: id}); err == nil {
		_, _ = fmt.Fprintln(s.errs, "the consent is cancelled")
	}
}

// byBrowser opens a browser here and catches where it is sent.
func (s *session) byBrowser(ctx context.Context, cn *connection, provider string, req *tokenbrokerv1.BeginConsentRequest) (*ending, error) {
	template, err := s.returnAddress(ctx, provider)
	if err != nil {
		return nil, err
	}
	catch, err := listen(ctx, template, cn.port)
	if err != nil {
		return nil, err
	}
	defer catch.Close()
	req.RedirectUri = catch.uri.String()
	return s.begin(ctx, req, func(ctx context.Context, begun *tokenbrokerv1.BeginConsentResponse) (*ending, error) {
		u, err := webAddress(begun.GetAuthorizationUrl())
		if err != nil {
			return nil, err
		}
		catch.serve(u.Query().Get("state"))
		s.open(u.String(), begun.GetConsent())
		callback, err := await(ctx, begun.GetConsent(), catch.caught)
		if err != nil {
			return nil, err
		}
		end, err := s.complete(ctx, begun, callback)
		catch.ended(ctx, err == nil && end.failed() == nil)
		return end, err
	})
}

// returnAddress is where the provider may send a browser on this machine. Who may not read providers can still consent: the broker checks
// the address anyway.
func (s *session) returnAddress(ctx context.Context, provider string) (string, error) {
	p, err := call(ctx, s, s.providers.GetProvider, &tokenbrokerv1.GetProviderRequest{Provider: provider})
	if code := status.Code(errors.Unwrap(err)); err != nil && (code == codes.PermissionDenied || code == codes.Unimplemented) {
		return usualReturn, nil
	}
	return or(p.GetProvider().GetLoopbackRedirect(), usualReturn), err
}

// open shows the URL and opens it.
func (s *session) open(url string, consent *tokenbrokerv1.Consent) {
	browse := s.browse
	if browse == nil {
		browse = openBrowser
	}
	head := "a browser opens; if it does not, open this URL in one on this machine:"
	if err := browse(url); err != nil {
		head = "no browser could be opened; open this URL in one on this machine, or try --no-browser:"
	}
	_, _ = fmt.Fprintf(s.errs, "%s\n\n  %s\n\n%s\n", head, clean(url), waiting(consent))
}

func waiting(c *tokenbrokerv1.Consent) string {
	text := "waiting for the consent"
	if t := c.GetExpireTime(); t != nil {
		text += ", " + round(time.Until(t.AsTime())) + " at most"
	}
	return text + "; Ctrl-C cancels it"
}

// await waits for the redirect, as long as the consent is open.
func await(ctx context.Context, consent *tokenbrokerv1.Consent, caught <-chan string) (string, error) {
	limit := 10 * time.Minute
	if t := consent.GetExpireTime(); t != nil {
		limit = time.Until(t.AsTime())
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case url := <-caught:
		return url, nil
	case <-timer.C:
		return "", &failure{exit: exitReauthorize, what: "nobody consented in time", action: "run it again"}
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// complete has the broker redeem what the provider sent. The URL gets into no error: it holds the code.
func (s *session) complete(ctx context.Context, begun *tokenbrokerv1.BeginConsentResponse, callback string) (*ending, error) {
	id := begun.GetConsent().GetConsentId()
	resp, err := call(ctx, s, s.consents.CompleteConsent, &tokenbrokerv1.CompleteConsentRequest{ConsentId: id, CallbackUrl: callback})
	if f, ok := errors.AsType[*failure](err); ok && f.reason == "CONSENT_ENDED" { // how it ended tells more
		if got, askErr := call(ctx, s, s.consents.GetConsent, &tokenbrokerv1.GetConsentRequest{ConsentId: id}); askErr == nil {
			err = cmp.Or((&ending{consent: got.GetConsent()}).failed(), err)
		}
	}
	if err != nil {
		return nil, err
	}
	return &ending{consent: resp.GetConsent(), cred: resp.GetCredential()}, nil
}

// byPaste has a person bring the URL that a browser was sent to.
func (s *session) byPaste(ctx context.Context, begun *tokenbrokerv1.BeginConsentResponse) (*ending, error) {
	u, err := webAddress(begun.GetAuthorizationUrl())
	if err != nil {
		return nil, err
	}
	_, _ = fmt.Fprintf(s.errs, "open this URL in any browser and consent:\n\n  %s\n\nThe browser is sent to %s, where it may show an error: that does not matter.\n"+
		"Copy the whole URL from its address bar and paste it here. It is worth something for a few minutes only, and to nobody but the broker.\n",
		clean(u.String()), clean(or(begun.GetRedirectUri(), "a URL with a code")))
	callback, err := s.pasted(ctx)
	if err != nil {
		return nil, err
	}
	return s.complete(ctx, begun, callback.Reveal())
}

// pasted reads a redirect URL: without echo on a terminal, else a line of standard input.
func (s *session) pasted(ctx context.Context) (tokenbroker.Secret, error) {
	var data []byte
	var err error
	if terminal(s.in) {
		data, err = s.prompt(ctx, &secretFlags{name: "redirect-URL"})
	} else {
		defer s.interruptible(ctx, func() {})()
		var text string
		text, err = line(s.in, tokenbroker.MaxSecretBytes+1)
		data = []byte(text)
	}
	if err != nil {
		return tokenbroker.Secret{}, err
	}
	data = bytes.TrimSpace(data)
	switch {
	case len(data) == 0:
		return tokenbroker.Secret{}, usagef("no redirect URL came")
	case len(data) > tokenbroker.MaxSecretBytes:
		return tokenbroker.Secret{}, usagef("the redirect URL has more than %d bytes", tokenbroker.MaxSecretBytes)
	case !bytes.HasPrefix(data, []byte("http://")) && !bytes.HasPrefix(data, []byte("https://")):
		return tokenbroker.Secret{}, usagef("this is no URL: copy all of the address bar, from http on")
	}
	return tokenbroker.NewSecret(string(data)), nil
}

// byDevice shows a code and waits until it was typed in.
func (s *session) byDevice(ctx context.Context, begun *tokenbrokerv1.BeginConsentResponse) (*ending, error) {
	u, err := webAddress(begun.GetVerificationUri())
	if err != nil {
		return nil, err
	}
	_, _ = fmt.Fprintf(s.errs, "on any device open   %s\nand type in          %s\n", clean(u.String()), clean(begun.GetUserCode()))
	if whole, err := webAddress(begun.GetVerificationUriComplete()); err == nil {
		_, _ = fmt.Fprintf(s.errs, "or open this alone   %s\n", clean(whole.String()))
	}
	_, _ = fmt.Fprintln(s.errs, waiting(begun.GetConsent()))
	return s.follow(ctx, begun.GetConsent())
}

// byLink gives a link away, and waits if that is wanted. A link stays when this command is left.
func (s *session) byLink(ctx context.Context, cn *connection, req *tokenbrokerv1.BeginConsentRequest) (*ending, error) {
	begun, err := call(ctx, s, s.consents.BeginConsent, req)
	if err != nil {
		return nil, err
	}
	if _, err := webAddress(begun.GetLink()); err != nil {
		return nil, err
	}
	end := &ending{begun: begun, consent: begun.GetConsent()}
	if !cn.wait {
		return end, nil
	}
	id := clean(word(begun.GetConsent().GetConsentId()))
	_, _ = fmt.Fprintf(s.errs, "give this link to the owner of the account, and to nobody else; it works once:\n\n  %s\n\nwaiting for the consent; Ctrl-C leaves the link as it is, "+
		"to end it: tokenctl consent cancel %s\n", clean(begun.GetLink()), id)
	followed, err := s.follow(ctx, begun.GetConsent())
	if err != nil {
		return nil, err
	}
	followed.begun = begun
	return followed, followed.failed()
}

// follow asks until a consent is not pending any more. A broker that is away for a while is waited for.
func (s *session) follow(ctx context.Context, consent *tokenbrokerv1.Consent) (*ending, error) {
	giveUp := time.Now().Add(time.Hour)
	if t := consent.GetExpireTime(); t != nil {
		giveUp = t.AsTime().Add(time.Minute) // the broker says first that it is over
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for consent.GetState() == tokenbrokerv1.ConsentState_CONSENT_STATE_PENDING {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		resp, err := call(ctx, s, s.consents.GetConsent, &tokenbrokerv1.GetConsentRequest{ConsentId: consent.GetConsentId()})
		f, known := errors.AsType[*failure](err)
		if err != nil && (!known || f.exit != exitLater || time.Now().After(giveUp)) {
			return nil, err
		}
		if err == nil {
			consent = resp.GetConsent()
		}
		timer.Reset(min(max(resp.GetPollInterval().AsDuration(), time.Second), 30*time.Second))
	}
	end := &ending{consent: consent}
	if consent.GetState() != tokenbrokerv1.ConsentState_CONSENT_STATE_DONE {
		return end, nil
	}
	got, err := call(ctx, s, s.creds.GetCredential, &tokenbrokerv1.GetCredentialRequest{Credential: consent.GetCredential()})
	end.cred = got.GetCredential()
	return end, err
}

// failed is why a consent brought no grant; nil if it did, or still may.
func (e *ending) failed() error {
	f := &failure{exit: exitReauthorize, action: e.consent.GetAdvice(), do: "tokenctl consent describe " + word(e.consent.GetConsentId())}
	switch e.consent.GetState() {
	case tokenbrokerv1.ConsentState_CONSENT_STATE_DENIED:
		f.what = "the person, or the provider, said no"
	case tokenbrokerv1.ConsentState_CONSENT_STATE_EXPIRED:
		f.what = "nobody consented in time"
	case tokenbrokerv1.ConsentState_CONSENT_STATE_FAILED:
		f.exit, f.what = exitFix, "the consent could not be redeemed"
	case tokenbrokerv1.ConsentState_CONSENT_STATE_CANCELLED:
		f.exit, f.what = exitOther, "the consent was cancelled"
	default:
		return nil
	}
	if code := e.consent.GetCode(); code != "" {
		f.what += ": " + code
		f.reason = code
	}
	f.what = strings.TrimSpace("credential " + e.consent.GetCredential() + ": " + f.what)
	return f
}
