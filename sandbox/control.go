package sandbox

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"
)

// ControlHandler steers the server over HTTP, in the words of scenarios. It asks nobody who he is: mount it where only
// those who may can reach it. Requests with a body are JSON, and must say so in their Content-Type, which no form on a web
// page can; so must those without.
//
//	GET    /control/journal         {"count", "entries"}; query: issuer, endpoint, grant_type, client_id, fault, status, code, unanswered
//	GET    /control/faults?issuer=  what is left of the script
//	POST   /control/faults          a FaultSpec, or {"faults": […]}
//	DELETE /control/faults?issuer=  {"cleared"}
//	POST   /control/release         {"issuer"}
//	POST   /control/advance         {"by"} → {"now"}
//	POST   /control/rotation        {"issuer", "rotation", "grace"}
//	POST   /control/seed            {"issuer", "client_id", "scopes"} → {"refresh_token"}
//	POST   /control/revoke          {"token", "alone"}: with its family, unless alone → {"known"}
//	POST   /control/auto-approve    {"issuer", "account"}; "" ends it
//	POST   /control/authorize       {"issuer", "url", "account", "scopes", "deny"} → {"redirect"}
//	POST   /control/activate        {"issuer", "user_code", "account", "scopes", "deny"}
//	POST   /control/key             {"issuer", "email", "base"} → a service account's key file
//
// An error is {"error": text} with status 400, or 404, 405 and 415 as HTTP has them.
func (s *Server) ControlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /control/journal", s.controlJournal)
	mux.HandleFunc("GET /control/faults", s.controlFaults)
	mux.HandleFunc("DELETE /control/faults", jsonOnly(s.controlClear))
	for path, serve := range map[string]func(io.Reader) (any, error){
		"faults":       s.controlFail,
		"release":      reading(s.controlRelease),
		"advance":      reading(s.controlAdvance),
		"rotation":     reading(s.controlRotation),
		"seed":         reading(s.controlSeed),
		"revoke":       reading(s.controlRevoke),
		"auto-approve": reading(s.controlAutoApprove),
		"authorize":    reading(s.controlAuthorize),
		"activate":     reading(s.controlActivate),
		"key":          reading(s.controlKey),
	} {
		mux.HandleFunc("POST /control/"+path, jsonOnly(func(w http.ResponseWriter, r *http.Request) {
			out, err := serve(http.MaxBytesReader(w, r.Body, maxBody))
			reply(w, out, err)
		}))
	}
	return mux
}

// jsonOnly refuses what a web page could send without asking.
func jsonOnly(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
			write(w, http.StatusUnsupportedMediaType, map[string]string{"error": "send Content-Type: application/json"})
			return
		}
		next(w, r)
	}
}

// reply answers with a value; nil stands for an empty object.
func reply(w http.ResponseWriter, out any, err error) {
	switch {
	case err != nil:
		write(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
	case out == nil:
		write(w, http.StatusOK, struct{}{})
	default:
		write(w, http.StatusOK, out)
	}
}

func write(w http.ResponseWriter, status int, body any) {
	a := jsonAnswer(status, body)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(a.body, '\n')) // the client may have gone
}

// steering is what the requests carry.
type steering struct {
	Issuer   string   `json:"issuer"`
	ClientID string   `json:"client_id"`
	Scopes   []string `json:"scopes"`
	Account  string   `json:"account"`
	Deny     bool     `json:"deny"`
	URL      string   `json:"url"`
	UserCode string   `json:"user_code"`
	Token    string   `json:"token"`
	Alone    bool     `json:"alone"`
	Email    string   `json:"email"`
	Base     string   `json:"base"`
	By       Duration `json:"by"`
	Rotation Rotation `json:"rotation"`
	Grace    Duration `json:"grace"`
}

func reading(serve func(steering) (any, error)) func(io.Reader) (any, error) {
	return func(body io.Reader) (any, error) {
		var in steering
		if err := decode(body, &in); err != nil {
			return nil, err
		}
		return serve(in)
	}
}

func decode(body io.Reader, into any) error {
	dec := json.NewDecoder(body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	if dec.More() {
		return errors.New("read request: more than one JSON value")
	}
	return nil
}

// guarded turns the panics that tell a Go test of its mistake into errors.
func guarded(f func()) (err error) {
	defer func() {
		if why := recover(); why != nil {
			err = fmt.Errorf("%v", why)
		}
	}()
	f()
	return nil
}

// entryView is an Entry with names as JSON has them.
type entryView struct {
	Time         time.Time `json:"time"`
	Host         string    `json:"host"`
	Issuer       string    `json:"issuer,omitempty"`
	Endpoint     Endpoint  `json:"endpoint,omitempty"`
	GrantType    string    `json:"grant_type,omitempty"`
	ClientID     string    `json:"client_id,omitempty"`
	RefreshToken string    `json:"refresh_token_fingerprint,omitempty"`
	Fault        string    `json:"fault,omitempty"`
	Processed    bool      `json:"processed"`
	Status       int       `json:"status"`
	Code         string    `json:"code,omitempty"`
}

func (s *Server) controlJournal(w http.ResponseWriter, r *http.Request) {
	f, err := readFilter(r)
	if err != nil {
		reply(w, nil, err)
		return
	}
	entries := []entryView{}
	for _, e := range s.Journal() {
		if f.matches(e.tally()) {
			entries = append(entries, entryView(e))
		}
	}
	reply(w, map[string]any{"count": s.Count(f), "entries": entries}, nil)
}

// readFilter reads a filter from a query.
func readFilter(r *http.Request) (Filter, error) {
	q := r.URL.Query()
	f := Filter{Issuer: q.Get("issuer"), Endpoint: Endpoint(q.Get("endpoint")), GrantType: q.Get("grant_type"), ClientID: q.Get("client_id"),
		Fault: q.Get("fault"), Code: q.Get("code")}
	for name := range q {
		switch name {
		case "issuer", "endpoint", "grant_type", "client_id", "fault", "code", "status", "unanswered":
		default:
			return Filter{}, fmt.Errorf("no filter %q", name)
		}
	}
	var err error
	if f.Status, err = strconv.Atoi(cmp.Or(q.Get("status"), "0")); err != nil {
		return Filter{}, errors.New("status is no number")
	}
	if f.Unanswered, err = strconv.ParseBool(cmp.Or(q.Get("unanswered"), "false")); err != nil {
		return Filter{}, errors.New("unanswered is neither true nor false")
	}
	return f, nil
}
