package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker"
)

// maxReport is how long the body of a report may be.
const maxReport = 4 << 10

// routes are what is served over HTTP.
func (a *Agent) routes() http.Handler {
	mux := http.NewServeMux()
	for _, r := range []struct {
		method, path string
		answer       http.HandlerFunc
	}{{http.MethodGet, "/v1/token/{name...}", a.getToken}, {http.MethodPost, "/v1/rejected/{name...}", a.postRejected}, {http.MethodGet, "/healthz", a.healthz}} {
		mux.HandleFunc(r.method+" "+r.path, r.answer)
		mux.HandleFunc(r.path, only(r.method)) // or it would be nowhere's
	}
	mux.HandleFunc("/", nowhere)
	return forJobs(mux)
}

// only answers requests of another method.
func only(method string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", method)
		http.Error(w, "This path is for "+method+".", http.StatusMethodNotAllowed)
	}
}

// nowhere answers for all paths that there are not.
func nowhere(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusNotFound)
	_, _ = fmt.Fprintln(w, "This is a tokenbroker agent. There are GET /v1/token/CREDENTIAL, POST /v1/rejected/CREDENTIAL and GET /healthz; and gRPC on the socket.")
}

// forJobs refuses what a browser sent: no page may make it ask for tokens. No answer is to be kept.
func forJobs(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		switch {
		case r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "":
			refuse(w, &tokenbroker.Problem{Err: tokenbroker.ErrNotAllowed, Detail: "the agent does not answer browsers"})
		case r.Method == http.MethodHead: // which the mux takes for GET
			h.Set("Allow", http.MethodGet)
			w.WriteHeader(http.StatusMethodNotAllowed)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// recovering turns a panic of a handler into an answer, as recovered does for gRPC.
func (a *Agent) recovering(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				refuse(w, a.panicked(p))
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// getToken answers GET /v1/token/{name}.
func (a *Agent) getToken(w http.ResponseWriter, r *http.Request) {
	q, format, err := questionOf(r)
	if err != nil {
		refuse(w, err)
		return
	}
	tok, err := a.plainToken(r.Context(), q)
	if err != nil {
		refuse(w, err)
		return
	}
	switch format {
	case "token":
		text(w, tok.AccessToken.Reveal())
	case "header":
		name, value := header(tok)
		text(w, name+": "+value)
	default:
		answer(w, http.StatusOK, tokenBody(tok))
	}
}

var formats = []string{"", "json", "header", "token"}

// questionOf reads a request for a token.
func questionOf(r *http.Request) (question, string, error) {
	q, err := aboutOf(r, "format", "min_validity")
	if err != nil {
		return q, "", err
	}
	v := r.URL.Query()
	if format := v.Get("format"); !slices.Contains(formats, format) {
		return q, "", tokenbroker.Invalid("format", errors.New("must be json, header or token"))
	}
	if least := v.Get("min_validity"); least != "" {
		if q.least, err = time.ParseDuration(least); err != nil {
			return q, "", tokenbroker.Invalid("min_validity", errors.New(`must be a duration, as "30m"`))
		}
	}
	return q, v.Get("format"), nil
}

// aboutOf reads which token a request is about. Other parameters than those and the further ones are refused: a scope that is misspelt
// must not bring a token with more.
func aboutOf(r *http.Request, further ...string) (question, error) {
	v, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil { // what can't be read is not left out: it may have been a scope
		return question{}, tokenbroker.Invalid("query", errors.New("can't be read: % is written %25, and & is between parameters"))
	}
	q := question{peer: caller(r.Context()), credential: r.PathValue("name"), scopes: v["scope"], subject: v.Get("subject"), audience: v.Get("audience"),
		began: time.Now(), id: requestID()}
	if v.Has("access_token") {
		return q, tokenbroker.Invalid("access_token", errors.New("a token never belongs into a URL"))
	}
	for name, values := range v {
		if name != "scope" && len(values) > 1 {
			return q, tokenbroker.Invalid(name, errors.New("is given twice"))
		}
		if known := append([]string{"scope", "subject", "audience"}, further...); !slices.Contains(known, name) {
			return q, tokenbroker.Invalid("query", fmt.Errorf("has the parameter %s, which there is not: there are %s", shown(name), strings.Join(known, ", ")))
		}
	}
	return q, nil
}

// shown is a name of the caller's, if it is like one: what is not may be a token in the wrong place.
func shown(name string) string {
	if len(name) > 32 || !plain(name) {
		return "of another name"
	}
	return strconv.Quote(name)
}

// tokenBody is a token as the answer to a token request has it (RFC 6749, section 5.1), with what the broker knows besides.
func tokenBody(t tokenbroker.Token) any {
	return struct {
		AccessToken string            `json:"access_token"`
		TokenType   string            `json:"token_type"`
		ExpiresIn   int64             `json:"expires_in"`
		ExpireTime  string            `json:"expire_time"`
		Scope       string            `json:"scope,omitempty"`
		Generation  string            `json:"generation"`
		Metadata    map[string]string `json:"metadata,omitempty"`
	}{t.AccessToken.Reveal(), scheme(t.Type), secondsLeft(t), t.Expiry.UTC().Format(time.RFC3339), strings.Join(t.Scopes, " "),
		strconv.FormatUint(uint64(t.Generation), 10), t.Metadata}
}

func secondsLeft(t tokenbroker.Token) int64 { return int64(max(0, time.Until(t.Expiry)) / time.Second) }

// scheme is how HTTP spells a token type: providers say "bearer", too.
func scheme(tokenType string) string {
	if tokenType == "" || strings.EqualFold(tokenType, "Bearer") {
		return "Bearer"
	}
	return tokenType
}

func header(t tokenbroker.Token) (name, value string) {
	t.Type = scheme(t.Type)
	return t.Header()
}

// plainToken is token for a caller who gets it as text.
func (a *Agent) plainToken(ctx context.Context, q question) (tokenbroker.Token, error) {
	tok, err := a.token(ctx, q)
	if err == nil && !sendable(tok) {
		err = fmt.Errorf("credential %s: its token has characters that no token may have", q.credential)
		a.crooked.Do(func() { a.cfg.Log.Warn("a token of the broker is not handed out", "error", err) })
	}
	return tok, err
}

// sendable reports whether a token can do nothing to a header or a terminal.
func sendable(t tokenbroker.Token) bool {
	name, value := header(t)
	return strings.IndexFunc(name+value, func(r rune) bool { return r < 0x20 || r > 0x7e }) < 0
}

// postRejected answers POST /v1/rejected/{name}. The answer holds no token: who wants the newer one asks for it.
func (a *Agent) postRejected(w http.ResponseWriter, r *http.Request) {
	q, err := aboutOf(r)
	if err != nil {
		refuse(w, err)
		return
	}
	var body struct {
		Generation json.Number `json:"generation"`
		HTTPStatus int         `json:"http_status"`
		ErrorCode  string      `json:"error_code"`
	}
	in := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxReport))
	in.DisallowUnknownFields()
	if err := in.Decode(&body); err != nil {
		refuse(w, tokenbroker.Invalid("body", errors.New(`must be {"generation": "7", "http_status": 401, "error_code": "invalid_token"}`)))
		return
	}
	generation, err := strconv.ParseUint(body.Generation.String(), 10, 64)
	if err != nil {
		refuse(w, tokenbroker.Invalid("generation", errors.New("must be the number of the token that was refused")))
		return
	}
	tok, wait, err := a.report(r.Context(), q, tokenbroker.Generation(generation), body.HTTPStatus, body.ErrorCode)
	if err != nil {
		refuse(w, err)
		return
	}
	answer(w, http.StatusOK, map[string]any{"generation": strconv.FormatUint(uint64(tok.Generation), 10),
		"newer": uint64(tok.Generation) > generation, "retry_after_seconds": seconds(wait)})
}

// healthz answers GET /healthz, with what the health service says, too.
func (a *Agent) healthz(w http.ResponseWriter, _ *http.Request) {
	if err := a.health.look(); err != nil {
		refuse(w, err)
		return
	}
	answer(w, http.StatusOK, map[string]string{"status": "ok"})
}

func text(w http.ResponseWriter, line string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = fmt.Fprintln(w, line)
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

// httpCodes are the statuses of the codes that do not mean "later".
var httpCodes = map[codes.Code]int{
	codes.InvalidArgument:    http.StatusBadRequest,
	codes.PermissionDenied:   http.StatusForbidden,
	codes.NotFound:           http.StatusNotFound,
	codes.FailedPrecondition: http.StatusConflict,
	codes.Aborted:            http.StatusConflict,
	codes.ResourceExhausted:  http.StatusTooManyRequests,
	codes.Internal:           http.StatusInternalServerError,
}

// refuse answers with an error.
func refuse(w http.ResponseWriter, err error) {
	st := statusOf(err)
	code, ok := httpCodes[st.Code()]
	if !ok {
		code = http.StatusServiceUnavailable
	}
	problem(w, code, st)
}

// problem answers with a status.
func problem(w http.ResponseWriter, code int, st *status.Status) {
	after := seconds(retryOf(st))
	if after > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(after, 10))
	}
	info := infoOf(st)
	answer(w, code, map[string]any{"error": struct {
		Reason     string `json:"reason"`
		Message    string `json:"message"`
		Recovery   string `json:"recovery_action"`
		RetryAfter int64  `json:"retry_after_seconds,omitempty"`
	}{info.GetReason(), messageOf(st), info.GetMetadata()["recoveryAction"], after}})
}

// httpName is the name over HTTP of a field, which the services may name otherwise.
func httpName(field string) string {
	switch field {
	case "minValidity":
		return "min_validity"
	case "scopes":
		return "scope"
	case "httpStatus":
		return "http_status"
	case "errorCode":
		return "error_code"
	}
	return field
}

// messageOf is what a status says, with the name of the parameter that is wrong, if one is.
func messageOf(st *status.Status) string {
	for _, d := range st.Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok && len(bad.GetFieldViolations()) > 0 {
			v := bad.GetFieldViolations()[0]
			return tokenbroker.ErrInvalidArgument.Error() + ": " + httpName(v.GetField()) + ": " + v.GetDescription()
		}
	}
	return st.Message()
}

// seconds rounds up: who asks a moment too early asks twice.
func seconds(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }
