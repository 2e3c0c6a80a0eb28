package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// faultView is what is left of a fault in the script.
type faultView struct {
	Name     string   `json:"name,omitempty"`
	Does     string   `json:"does"`
	Endpoint Endpoint `json:"endpoint"`
	Times    int      `json:"times"` // requests that it has still to meet; -1 = until cleared
}

func (s *Server) controlFaults(w http.ResponseWriter, r *http.Request) {
	views := []faultView{}
	err := guarded(func() {
		for _, f := range s.Pending(r.URL.Query().Get("issuer")) {
			views = append(views, faultView{Name: f.Name, Does: f.String(), Endpoint: f.Endpoint, Times: f.Times})
		}
	})
	reply(w, map[string]any{"faults": views}, err)
}

func (s *Server) controlClear(w http.ResponseWriter, r *http.Request) {
	var n int
	err := guarded(func() { n = s.Clear(r.URL.Query().Get("issuer")) })
	reply(w, map[string]int{"cleared": n}, err)
}

// controlFail takes one fault, or several at once, all or none of them if they are of one issuer.
func (s *Server) controlFail(body io.Reader) (any, error) {
	var in struct {
		FaultSpec
		Faults []FaultSpec `json:"faults"`
	}
	if err := decode(body, &in); err != nil {
		return nil, err
	}
	specs := in.Faults
	if specs == nil {
		specs = []FaultSpec{in.FaultSpec}
	}
	script := map[string][]Fault{}
	for n, spec := range specs {
		f, err := spec.Fault()
		if err != nil {
			return nil, fmt.Errorf("fault %d: %w", n+1, err)
		}
		script[spec.Issuer] = append(script[spec.Issuer], f)
	}
	for issuer, faults := range script {
		if err := s.Try(issuer, faults...); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func (s *Server) controlRelease(in steering) (any, error) {
	return nil, guarded(func() { s.Release(in.Issuer) })
}

func (s *Server) controlAdvance(in steering) (any, error) {
	s.Advance(time.Duration(in.By))
	return map[string]time.Time{"now": s.Now().UTC()}, nil
}

func (s *Server) controlRotation(in steering) (any, error) {
	var err error
	if e := guarded(func() { err = s.SetRotation(in.Issuer, in.Rotation, time.Duration(in.Grace)) }); e != nil {
		return nil, e
	}
	return nil, err
}

func (s *Server) controlSeed(in steering) (any, error) {
	var token string
	err := guarded(func() { token = s.SeedRefreshToken(in.Issuer, in.ClientID, in.Scopes...) })
	return map[string]string{"refresh_token": token}, err
}

func (s *Server) controlRevoke(in steering) (any, error) {
	if in.Token == "" {
		return nil, errors.New("token is missing")
	}
	end := s.RevokeFamily
	if in.Alone {
		end = s.RevokeToken
	}
	return map[string]bool{"known": end(in.Token)}, nil
}

func (s *Server) controlAutoApprove(in steering) (any, error) {
	return nil, guarded(func() { s.AutoApprove(in.Issuer, in.Account) })
}

func (s *Server) controlAuthorize(in steering) (any, error) {
	var to string
	var err error
	if e := guarded(func() {
		if in.Deny {
			to, err = s.RefuseAuthorization(in.Issuer, in.URL)
			return
		}
		to, err = s.Authorize(in.Issuer, in.URL, in.Account, in.Scopes...)
	}); e != nil {
		return nil, e
	}
	return map[string]string{"redirect": to}, err
}

func (s *Server) controlActivate(in steering) (any, error) {
	var err error
	if e := guarded(func() {
		if in.Deny {
			err = s.Deny(in.Issuer, in.UserCode)
			return
		}
		err = s.Approve(in.Issuer, in.UserCode, in.Account, in.Scopes...)
	}); e != nil {
		return nil, e
	}
	return nil, err
}

func (s *Server) controlKey(in steering) (any, error) {
	var file []byte
	err := guarded(func() { file = s.AddServiceAccountKey(in.Issuer, in.Email, in.Base) })
	return json.RawMessage(file), err
}
