package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// connected prints how a consent ended: the grant, or what is still to do.
func (s *session) connected(e *ending) error {
	if e.cred == nil {
		return s.handedOn(e)
	}
	return s.emit(&tokenbrokerv1.CompleteConsentResponse{Consent: e.consent, Credential: e.cred}, func(w io.Writer) error {
		return describe(w, summary(e.consent, e.cred, time.Now()))
	})
}

// handedOn prints a consent that somebody else has to go on with: the owner of the account, or an operator who accepts it.
func (s *session) handedOn(e *ending) error {
	id := word(e.consent.GetConsentId())
	if e.consent.GetState() == tokenbrokerv1.ConsentState_CONSENT_STATE_AWAITING_ACCEPTANCE {
		return s.emit(&tokenbrokerv1.GetConsentResponse{Consent: e.consent}, func(w io.Writer) error { return describe(w, consentSections(e.consent, time.Now())) })
	}
	return s.emit(e.begun, func(w io.Writer) error {
		if _, err := fmt.Fprintln(w, clean(e.begun.GetLink())); err != nil {
			return err
		}
		until := "for a while"
		if t := e.consent.GetExpireTime(); t != nil {
			until = "until " + both(t, time.Now(), "")
		}
		_, err := fmt.Fprintf(s.errs, "give this link to the owner of the account, and to nobody else; it works once, %s\n"+
			"see how it stands:    tokenctl consent describe %s\nthen take the account: tokenctl consent accept %s --account ACCOUNT\n", until, clean(id), clean(id))
		return err
	})
}

// summary is what a consent brought.
func summary(consent *tokenbrokerv1.Consent, cred *tokenbrokerv1.Credential, now time.Time) []section {
	st, name := cred.GetStatus(), word(cred.GetCredential())
	rows := [][2]string{
		{"Account", or(consent.GetAccount(), "the provider does not say")},
		{"Asked", list(consent.GetScopes(), "the provider's default")},
		{"Granted", list(consent.GetGrantedScopes(), "the provider does not say: as asked")},
		{"Missing", list(consent.GetMissingScopes(), "none")},
	}
	if len(consent.GetMissingScopes()) > 0 {
		rows = append(rows, [2]string{"", "a token that needs one of these fails with SCOPE_NOT_GRANTED; consent again and grant them:"}, [2]string{"", reconnect(cred)})
	}
	rows = append(rows,
		[2]string{"Token expires", both(st.GetExpireTime(), now, "there is none yet")},
		[2]string{"Refresh token", refreshWords(st)},
		[2]string{"Trial", or(consent.GetTrial(), "not made: it could end a token that others hold, or the last exchange was a moment ago")},
		[2]string{"For", usersOf(consent)},
		[2]string{"Next", "tokenctl credential check " + name},
		[2]string{"", "tokenctl get " + name})
	if consent.GetAdvice() != "" {
		rows = append(rows, [2]string{"Advice", consent.GetAdvice()})
	}
	return []section{{"Connected " + cred.GetCredential(), rows}}
}

// usersOf says who may have a token of what was connected.
func usersOf(consent *tokenbrokerv1.Consent) string {
	if who := consent.GetPermitted(); len(who) > 0 {
		return strings.Join(who, ", ")
	}
	return "nobody yet: no rule of the policy gives an identity token.get on " + consent.GetCredential()
}

// refreshWords is what is known of a refresh token: whether there is one, when it ends, and whether it rotates.
func refreshWords(st *tokenbrokerv1.CredentialStatus) string {
	if !st.GetHasRefreshToken() {
		return "none: a person has to consent again when the token has expired"
	}
	text := "held"
	if st.GetRotationSeen() {
		text += ", rotates with each refresh"
	}
	if t := st.GetRefreshTokenExpireTime(); t != nil {
		text += ", ends " + stamp(t.AsTime())
	}
	return text
}
