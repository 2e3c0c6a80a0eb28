package conformance_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/provider"
)

func durationOf(d provider.Duration) *durationpb.Duration { return durationpb.New(time.Duration(d)) }

// check compares what a step brought with what is wanted.
func (r *runner) check(w want, got outcome) {
	r.t.Helper()
	r.checkCall(w, got)
	if got.token != nil {
		r.checkToken(w, got)
	}
	r.checkSends(w, got.sends)
	if w.Pushed != "" {
		r.checkPushed(w.Pushed)
	}
	if w.Told != "" {
		_, state, _ := r.newest()
		same(r, "state that the subscriber was told", state, w.Told)
	}
	r.checkLives(w)
	if w.Warnings != nil {
		same(r, "warnings", r.warned()-got.warned, *w.Warnings)
	}
	if r.f.Steps[0].Do != "create" {
		r.checkStatus(w)
	}
}

// same reports a difference.
func same[T comparable](r *runner, what string, got, want T) {
	r.t.Helper()
	if got != want {
		r.t.Errorf("%s: %s: got %v, want %v", r.at, what, got, want)
	}
}

// holds reports a text that lacks a part.
func holds(r *runner, what, got, part string) {
	r.t.Helper()
	if !strings.Contains(got, part) {
		r.t.Errorf("%s: %s: got %q, want it to say %q", r.at, what, got, part)
	}
}

// checkCall looks at the error that the caller saw.
func (r *runner) checkCall(w want, got outcome) {
	r.t.Helper()
	reason, field, recovery, after := r.read(got.err)
	same(r, "error", reason, w.Error)
	if w.Field != "" {
		same(r, "field", field, w.Field)
	}
	if recovery != "" && w.Action != "" { // the worker is told of the same as the operator
		same(r, "recovery action of the error", recovery, w.Action)
	}
	if w.Says != "" {
		holds(r, "error", status.Convert(got.err).Message(), w.Says)
	}
	if after < time.Duration(w.WaitMin) || w.WaitMax > 0 && after > time.Duration(w.WaitMax) {
		r.t.Errorf("%s: retry after: got %v, want %v to %v", r.at, after, w.WaitMin, w.WaitMax)
	}
	if w.Outcome != "" {
		same(r, "outcome", strings.ToLower(strings.TrimPrefix(got.report.String(), "REPORT_OUTCOME_")), w.Outcome)
	}
	switch {
	case w.Token == "*":
		same(r, "a token came", got.token.GetAccessToken() != "", true)
	case w.Token != "":
		same(r, "token", got.token.GetAccessToken(), w.Token)
	}
}

// read takes apart an error, and keeps it for checkSilence.
func (r *runner) read(err error) (reason, field, recovery string, after time.Duration) {
	if err == nil {
		return "", "", "", 0
	}
	st := status.Convert(err)
	r.hear("%s", st.Message())
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason, recovery = d.GetReason(), d.GetMetadata()["recoveryAction"]
			r.hear("%v", d.GetMetadata())
		case *errdetails.RetryInfo:
			after = d.GetRetryDelay().AsDuration()
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				field = v.GetField()
				r.hear("%s", v.GetDescription())
			}
		}
	}
	if reason == "" {
		reason = st.Code().String()
	}
	return reason, field, recovery, after
}

func (r *runner) checkToken(w want, got outcome) {
	r.t.Helper()
	if w.Life != nil {
		same(r, "expires in", got.token.GetExpireTime().AsTime().Sub(got.began), time.Duration(*w.Life))
	}
	if w.Estimated != nil {
		same(r, "estimated", got.token.GetExpireTimeEstimated(), *w.Estimated)
	}
	if w.Scopes != nil && !slices.Equal(got.token.GetScopes(), w.Scopes) {
		r.t.Errorf("%s: scopes: got %q, want %q", r.at, got.token.GetScopes(), w.Scopes)
	}
	if w.Metadata != nil && !maps.Equal(got.token.GetMetadata(), w.Metadata) {
		r.t.Errorf("%s: metadata: got %v, want %v", r.at, got.token.GetMetadata(), w.Metadata)
	}
}

// checkStatus looks at the credential as an operator does.
func (r *runner) checkStatus(w want) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	resp, err := r.credentials.GetCredential(ctx, &tokenbrokerv1.GetCredentialRequest{Credential: name})
	if err != nil {
		r.t.Errorf("%s: look at the credential: %v", r.at, err)
		return
	}
	st := resp.GetCredential().GetStatus()
	r.hear("%s %s %s %s", st.GetCode(), st.GetCause(), st.GetAdvice(), st.GetAccount())
	if w.State != "" {
		same(r, "state", strings.TrimPrefix(st.GetState().String(), "CREDENTIAL_STATE_"), w.State)
	}
	if w.Action != "" {
		same(r, "action", strings.TrimPrefix(st.GetRecoveryAction().String(), "RECOVERY_ACTION_"), w.Action)
	}
	if w.Code != "" {
		same(r, "code", st.GetCode(), w.Code)
	}
	if w.Cause != "" {
		same(r, "cause", st.GetCause(), w.Cause)
	}
	if w.Advice != "" {
		holds(r, "advice", st.GetAdvice(), w.Advice)
	}
	if w.Serial != 0 {
		same(r, "serial", st.GetSerial(), w.Serial)
	}
	if w.Variants != 0 {
		same(r, "variants", int(st.GetVariantCount()), w.Variants)
	}
	if w.Skew != nil {
		same(r, "clock skew", st.GetClockSkew().AsDuration(), time.Duration(*w.Skew))
	}
	if w.EndsIn != nil {
		got := time.Duration(0)
		if end := st.GetRefreshTokenExpireTime(); end != nil {
			got = time.Until(end.AsTime())
		}
		same(r, "refresh token ends in", got.Round(time.Hour), time.Duration(*w.EndsIn))
	}
}

// checkSends looks at what left for the provider.
func (r *runner) checkSends(w want, before int) {
	r.t.Helper()
	n := r.up.count() - before
	if w.Sends != nil {
		same(r, "requests sent", n, *w.Sends)
	}
	if n < w.SendsMin || w.SendsMax > 0 && n > w.SendsMax {
		r.t.Errorf("%s: requests sent: got %d, want %d to %d", r.at, n, w.SendsMin, w.SendsMax)
	}
	last, ok := r.up.lastSent()
	if !ok {
		return
	}
	if w.Sent.URL != "" {
		u := *last.url
		u.RawQuery = ""
		same(r, "URL", u.String(), w.Sent.URL)
	}
	if w.Sent.Method != "" {
		same(r, "method", last.method, w.Sent.Method)
	}
	fields := func(what string, wanted map[string]string, get func(string) string) {
		r.t.Helper()
		for field, value := range wanted {
			if got := get(field); got != value && (value != "*" || got == "") {
				r.t.Errorf("%s: %s %s: got %q, want %q", r.at, what, field, got, value)
			}
		}
	}
	fields("query", w.Sent.Query, last.url.Query().Get)
	fields("header", w.Sent.Headers, last.header.Get)
	fields("form", w.Sent.Form, last.form.Get)
	fields("JSON", w.Sent.JSON, func(field string) string {
		if v, ok := last.json[field]; ok {
			return fmt.Sprint(v)
		}
		return ""
	})
}

// checkPushed looks at what the subscriber was sent. A token that came has to be there within a second of the reply that brought it.
func (r *runner) checkPushed(want string) {
	r.t.Helper()
	token, _, at := r.newest()
	if want != "*" {
		same(r, "pushed", token, want)
	}
	r.up.mu.Lock()
	answered := r.up.answered
	r.up.mu.Unlock()
	if lag := at.Sub(answered); lag > time.Second {
		r.t.Errorf("%s: pushed %v after the reply", r.at, lag)
	}
}

// checkLives asks the sandbox which of the worker's tokens it still takes.
func (r *runner) checkLives(w want) {
	r.t.Helper()
	for alive, list := range map[bool][]string{true: w.Lives, false: w.Dead} {
		for _, which := range list {
			token := r.had[0]
			if which == "current" {
				token = r.had[len(r.had)-1]
			}
			if r.b.Sandbox.Valid(token) != alive {
				r.t.Errorf("%s: the %s token: alive is %v, want %v", r.at, which, !alive, alive)
			}
		}
	}
}

var tokenValue = regexp.MustCompile(`(?:access_token|refresh_token|id_token|"token)"?\s*[:=]\s*"?([^"&,}\s]{6,})`)

// checkSilence makes sure that no error, state, log line or event tells a provider's text, a token or a secret.
func (r *runner) checkSilence() {
	r.t.Helper()
	audit, err := os.ReadFile(r.b.Dir + "/audit.jsonl")
	if err != nil {
		r.t.Errorf("read the audit log: %v", err)
	}
	r.mu.Lock()
	told := r.out.String() + string(audit)
	r.mu.Unlock()
	secrets := slices.Concat([]string{marker, clientSecret, firstRefresh}, r.had, r.received(), r.up.secrets())
	slices.Sort(secrets)
	for _, secret := range slices.Compact(secrets) {
		if strings.Contains(told, secret) {
			r.t.Errorf("%q is told somewhere", secret)
		}
	}
}

// received is what the provider wrote and gave, and what an operator typed.
func (r *runner) received() (list []string) {
	for _, file := range r.keys {
		list = append(list, strings.Split(file, `\n`)[1]) // the first line of the key
	}
	for _, s := range r.f.Steps {
		if verb, arg, _ := strings.Cut(s.Do, " "); verb == "import" || verb == "secret" {
			list = append(list, arg)
		}
		for _, rep := range s.Replies {
			list = append(list, rep.said()...)
			for n := range r.up.count() + 1 {
				for _, m := range tokenValue.FindAllStringSubmatch(fill(rep.Body, n), -1) {
					list = append(list, m[1])
				}
			}
		}
	}
	return list
}
