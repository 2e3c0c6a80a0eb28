package grant

import (
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

const (
	maxLife        = 365 * 24 * time.Hour      // a longer life is not believed
	maxRefreshLife = 10 * 365 * 24 * time.Hour // as good as for ever
	maxMetadata    = 1 << 10                   // bytes of one value
)

// interpret says what a reply means. It returns a refresh token together with a failure where both are there.
func (q *query) interpret(a answer, sent time.Time) (tokenbroker.ExchangeReply, *tokenbroker.Failure) {
	out := tokenbroker.ExchangeReply{Sent: sent, Skew: a.skew}
	top := parse(a.body, a.fault != "")
	if a.status/100 != 2 {
		return out, q.refusal(a, top)
	}
	p := q.at.profile
	held := top.at(p.TokenPath)
	if rt := held.text("refresh_token"); plausible(rt) {
		out.RefreshToken = tokenbroker.NewSecret(rt)
		if life, ok := q.life(held, p.RefreshTokenExpiryField, maxRefreshLife, sent.Add(-a.skew)); ok && life > 0 {
			out.RefreshEnd = sent.Add(life).Round(0)
		}
	}
	switch {
	case !top.whole:
		return out, q.unreadable(a)
	case top.isUnclear(p.OKField, p.ErrorPath, p.TokenPath, "error"),
		held.isUnclear("access_token", "refresh_token", "token_type", "scope", p.ExpiryField, p.RefreshTokenExpiryField):
		return out, q.fault(a, tokenbroker.ClassAmbiguous, "duplicate_key")
	case errorCode(top, p.ErrorPath) != "", p.OKField != "" && top.scalar(p.OKField) == "false":
		return out, q.refusal(a, top)
	}
	token, class, code := q.token(top, held, sent, sent.Add(-a.skew))
	if code != "" {
		return out, q.fault(a, class, code)
	}
	granted, account := q.named(held), q.account(top)
	if q.indiscreet(granted, account, token, held) {
		return out, q.fault(a, tokenbroker.ClassConfiguration, "secret_in_reply")
	}
	out.Token, out.Granted, out.Account = token, granted, account
	return out, nil
}

// indiscreet reports whether a reply repeats a secret where it says what the token is: that is written to the trail and shown to operators.
// What the profile passes on goes to workers, who have the access token anyway.
func (q *query) indiscreet(granted []string, account string, token *tokenbroker.Token, held fields) bool {
	secrets := slices.Clone(q.secrets)
	if rt := held.text("refresh_token"); rt != "" {
		secrets = append(secrets, rt)
	}
	if carries(slices.Collect(maps.Values(token.Metadata)), secrets) {
		return true
	}
	secrets = append(secrets, token.AccessToken.Reveal())
	part := func(scope string) bool { // a secret with a blank in it comes as several scopes
		return !slices.Contains(q.asked.Scopes, scope) && slices.ContainsFunc(secrets, func(s string) bool { return echoes(strings.ToLower(scope), s) })
	}
	return carries([]string{account}, secrets) || slices.ContainsFunc(granted, part)
}

// unreadable is the failure of a reply that says yes and can't be read.
func (q *query) unreadable(a answer) *tokenbroker.Failure {
	code := a.fault
	switch {
	case code != "":
	case len(a.body) == 0:
		code = "empty_reply"
	default:
		code = "unreadable_reply"
	}
	return q.fault(a, tokenbroker.ClassAmbiguous, code)
}

// token reads the access token. A code is returned in its place if it can't be served. theirs is sent by the provider's clock.
func (q *query) token(top, held fields, sent, theirs time.Time) (*tokenbroker.Token, tokenbroker.Class, string) {
	access := held.text("access_token")
	switch {
	case access == "":
		return nil, tokenbroker.ClassAmbiguous, "no_access_token"
	case !plausible(access):
		return nil, tokenbroker.ClassAmbiguous, "bad_access_token"
	case q.grant.wire == exchangeGrant && !q.issued(held):
		return nil, tokenbroker.ClassConfiguration, "unexpected_issued_token_type"
	case !q.isBearer(held) && !q.isOther(held):
		return nil, tokenbroker.ClassConfiguration, "unsupported_token_type"
	}
	life, named := q.life(held, q.at.profile.ExpiryField, maxLife, theirs)
	if !named {
		life = q.at.traits.DefaultLife
		if life <= 0 {
			life = time.Hour
		}
	}
	if life <= 0 {
		return nil, tokenbroker.ClassTransient, "expired_on_arrival"
	}
	scopes, ok := q.scopes(held)
	if !ok {
		return nil, tokenbroker.ClassConfiguration, "downscope_not_confirmed"
	}
	scopes = slices.DeleteFunc(scopes, func(s string) bool { return slices.Contains(q.besides, s) })
	kind := "Bearer"
	if q.isOther(held) {
		kind = notBearer
	}
	return &tokenbroker.Token{
		AccessToken:     tokenbroker.NewSecret(access),
		Type:            kind,
		Scopes:          scopes,
		Expiry:          sent.Add(life).Round(0), // wall time: a monotonic reading would not see a suspended machine
		ExpiryEstimated: !named,
		Obtained:        sent,
		Metadata:        q.metadata(top),
	}, "", ""
}

// isBearer reports whether the token type is one that a job can put in a header as it is (RFC 6750).
func (q *query) isBearer(held fields) bool {
	value := held.value("token_type")
	if len(value) == 0 || string(value) == "null" || string(value) == `""` {
		return true
	}
	name := held.text("token_type")
	return slices.ContainsFunc(append([]string{"bearer"}, q.at.profile.BearerTypes...), func(s string) bool {
		return strings.EqualFold(s, name)
	})
}

// life reads a life in the profile's unit, at most the limit. Times since the epoch and dates are the provider's, so that theirs is what they
// count from. Not ok means that the reply names none.
func (q *query) life(held fields, field string, limit time.Duration, theirs time.Time) (time.Duration, bool) {
	unit := q.at.profile.ExpiryUnit
	if unit == "rfc3339" {
		at, err := time.Parse(time.RFC3339, held.text(field))
		return max(0, min(at.Sub(theirs), limit)), err == nil
	}
	n, ok := held.number(field)
	if !ok {
		return 0, false
	}
	switch unit {
	case "ms":
		n /= 1e3
	case "unix":
		n -= float64(theirs.UnixMilli()) / 1e3
	case "unix_ms":
		n = (n - float64(theirs.UnixMilli())) / 1e3
	}
	return time.Duration(math.Max(0, math.Min(n*float64(time.Second), float64(limit)))), true
}

// scopes returns the scopes granted. Not ok means that fewer were asked for than the grant has, and that the reply does not
// confirm that it gave no others.
func (q *query) scopes(held fields) ([]string, bool) {
	given := q.named(held)
	if q.narrower && (len(given) > 0 || !q.exact) {
		other := func(s string) bool { return !slices.Contains(q.asked.Scopes, s) }
		return given, len(given) > 0 && !slices.ContainsFunc(given, other)
	}
	if len(given) == 0 {
		given = slices.Clone(q.asked.Scopes)
	}
	return given, true
}

// named returns the scopes that a reply names, in the spelling that they were asked for in. nil if it names none.
func (q *query) named(held fields) []string {
	given := held.texts("scope", q.at.profile.ScopeSeparator)
	given = slices.DeleteFunc(given, func(s string) bool { return s == "" })
	if len(given) == 0 {
		return nil
	}
	return q.at.profile.AsAsked(given, q.asked.Scopes)
}

// account returns whose account it is, as far as the reply itself says so.
func (q *query) account(top fields) string {
	for _, path := range q.at.profile.Account {
		if strings.HasPrefix(path, "id_token.") || strings.HasPrefix(path, "userinfo.") {
			continue
		}
		if s := top.scalar(path); s != "" && tokenbroker.ValidateSubject(s) == nil {
			return s
		}
	}
	return ""
}

// metadata returns the fields that the profile passes on.
func (q *query) metadata(top fields) map[string]string {
	var m map[string]string
	for _, path := range q.at.profile.Metadata {
		v := top.scalar(path)
		if v == "" || len(v) > maxMetadata || !printable(v) {
			continue
		}
		if m == nil {
			m = map[string]string{}
		}
		m[path] = v
	}
	return m
}

// plausible reports whether s can be a token: VSCHAR of RFC 6749 appendix A, no blank at either end, of a size that fits a header.
func plausible(s string) bool {
	return s != "" && len(s) <= tokenbroker.MaxSecretBytes && printable(s) && strings.TrimSpace(s) == s
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}
