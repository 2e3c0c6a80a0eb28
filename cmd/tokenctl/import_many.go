package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// What an import does with an item.
const (
	actCreate    = "create"
	actUpdate    = "update"
	actUnchanged = "unchanged"
	actConflict  = "conflict"
	actFailed    = "failed"
)

// step is what is to be done about an item, and how it went.
type step struct {
	item
	action  string
	changes []string // fields that differ; with a conflict those that can't be changed
	etag    string   // of what is there
	note    string
	err     error
}

func (s *session) importMany(ctx context.Context, im *importing) error {
	data, err := s.slurp(ctx, "--filename", im.file)
	if err != nil {
		return err
	}
	items, err := parseItems(im.file, data)
	if err != nil {
		return err
	}
	steps := make([]*step, 0, len(items))
	for i, it := range items {
		st, err := s.handle(ctx, im, it, steps)
		if err != nil { // the broker is away, or somebody interrupted: the rest would go the same way
			return errors.Join(s.showSteps(steps), err)
		}
		steps = append(steps, st)
		_, _ = fmt.Fprintf(s.errs, "%d/%d %s %s: %s\n", i+1, len(items), st.kind(), clean(st.name()), clean(st.told(im)))
	}
	return errors.Join(s.showSteps(steps), total(steps))
}

// handle finds out what is to be done about an item, and does it if it is meant. Its error ends the whole import.
func (s *session) handle(ctx context.Context, im *importing, it item, before []*step) (*step, error) {
	st := &step{item: it}
	if st.err = s.plan(ctx, st); st.err == nil && !im.dry {
		st.err = s.carryOut(ctx, im.validate, st, before)
	}
	if st.err == nil {
		return st, nil
	}
	if f, ok := errors.AsType[*failure](st.err); !ok || f.reason == "" && f.exit != exitConflict {
		return nil, st.err
	}
	if st.action != actConflict {
		st.action = actFailed
	}
	return st, nil
}

// plan compares an item with what is there.
func (s *session) plan(ctx context.Context, st *step) error {
	var fixed, changed []string
	var err error
	if st.client != nil {
		var got *tokenbrokerv1.GetOAuthClientResponse
		got, err = call(ctx, s, s.clients.GetOAuthClient, &tokenbrokerv1.GetOAuthClientRequest{OauthClient: st.name()})
		fixed, changed = clientDiff(got.GetOauthClient().GetSpec(), st.client.GetSpec())
		st.etag = got.GetOauthClient().GetEtag()
	} else {
		var got *tokenbrokerv1.GetCredentialResponse
		got, err = call(ctx, s, s.creds.GetCredential, &tokenbrokerv1.GetCredentialRequest{Credential: st.name()})
		fixed, changed = credentialDiff(got.GetCredential().GetSpec(), st.cred.GetSpec())
		st.etag = got.GetCredential().GetEtag()
	}
	if f, ok := errors.AsType[*failure](err); ok && f.exit == exitNotFound {
		st.action = actCreate
		return nil
	}
	switch {
	case err != nil:
		return err
	case len(fixed) > 0:
		st.action, st.changes = actConflict, fixed
		return &failure{exit: exitConflict, what: st.kind() + " " + st.name() + " is there with another " + strings.Join(fixed, " and ") + ", which can't be changed"}
	case len(changed) > 0:
		st.action, st.changes = actUpdate, changed
	default:
		st.action = actUnchanged
	}
	return nil
}

func clientDiff(is, want *tokenbrokerv1.OAuthClientSpec) (fixed, changed []string) {
	return differing(map[string]bool{"provider": is.GetProvider() != want.GetProvider()}), differing(map[string]bool{
		"client_id": is.GetClientId() != want.GetClientId(), "auth_method": is.GetAuthMethod() != want.GetAuthMethod(),
		"labels": !maps.Equal(is.GetLabels(), want.GetLabels())})
}

func credentialDiff(is, want *tokenbrokerv1.CredentialSpec) (fixed, changed []string) {
	same := func(a, b []string) bool {
		return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
	}
	return differing(map[string]bool{"provider": is.GetProvider() != want.GetProvider(), "grant_type": is.GetGrantType() != want.GetGrantType()}),
		differing(map[string]bool{
			"oauth_client": is.GetOauthClient() != want.GetOauthClient(), "scopes": !same(is.GetScopes(), want.GetScopes()),
			"subject": is.GetSubject() != want.GetSubject(), "audience": is.GetAudience() != want.GetAudience(),
			"labels": !maps.Equal(is.GetLabels(), want.GetLabels()), "owner": is.GetOwner() != want.GetOwner(),
			"resources": !same(is.GetResources(), want.GetResources()), "parameters": !maps.Equal(is.GetParameters(), want.GetParameters()),
			"source": is.GetSource() != want.GetSource(), "extra_scopes": allowsExtra(is) != allowsExtra(want)})
}

func differing(m map[string]bool) []string {
	maps.DeleteFunc(m, func(_ string, differs bool) bool { return !differs })
	return keys(m)
}

// carryOut does what was planned, or has the broker check it.
func (s *session) carryOut(ctx context.Context, validate bool, st *step, before []*step) error {
	switch {
	case st.action == actUpdate && !validate:
		return s.change(ctx, st)
	case st.action != actCreate:
		return nil
	case st.client != nil:
		st.client.ValidateOnly = validate
		_, err := call(ctx, s, s.clients.CreateOAuthClient, st.client)
		return err
	case validate && slices.ContainsFunc(before, func(b *step) bool {
		return b.client != nil && b.name() == st.cred.GetSpec().GetOauthClient() && b.action == actCreate
	}):
		st.note = "is checked when its OAuth client is there"
		return nil
	}
	st.cred.ValidateOnly = validate
	resp, err := call(ctx, s, s.creds.CreateCredential, st.cred)
	st.note = strings.Join(resp.GetWarnings(), "; ")
	return err
}

func (s *session) change(ctx context.Context, st *step) error {
	mask := &fieldmaskpb.FieldMask{Paths: st.changes}
	if st.client != nil {
		_, err := call(ctx, s, s.clients.UpdateOAuthClient, &tokenbrokerv1.UpdateOAuthClientRequest{OauthClient: st.name(), Spec: st.client.GetSpec(), UpdateMask: mask, Etag: st.etag})
		return err
	}
	_, err := call(ctx, s, s.creds.UpdateCredential, &tokenbrokerv1.UpdateCredentialRequest{Credential: st.name(), Spec: st.cred.GetSpec(), UpdateMask: mask, Etag: st.etag})
	return err
}

// told is how it went, in words.
func (st *step) told(im *importing) string {
	word := st.action
	switch {
	case st.err != nil:
		return word + ": " + st.err.Error()
	case im.dry:
	case im.validate:
		word = map[string]string{actCreate: "all right, would be created", actUpdate: "would be updated", actUnchanged: "unchanged"}[word]
	default:
		word = map[string]string{actCreate: "created", actUpdate: "updated", actUnchanged: "unchanged"}[word]
	}
	if d := st.detail(); d != "" {
		word += " (" + d + ")"
	}
	return word
}

// detail is what differs, and which secrets come with it: their names, never more.
func (st *step) detail() string {
	var parts []string
	if len(st.changes) > 0 {
		parts = append(parts, strings.Join(st.changes, ", "))
	}
	switch secrets := st.secrets(); {
	case len(secrets) == 0:
	case st.action == actCreate:
		parts = append(parts, "with "+strings.Join(secrets, ", "))
	case st.action == actUpdate, st.action == actUnchanged:
		parts = append(parts, strings.Join(secrets, ", ")+" not sent again")
	}
	if st.note != "" {
		parts = append(parts, st.note)
	}
	return strings.Join(parts, "; ")
}

func (s *session) showSteps(steps []*step) error {
	rows, objects := make([][]string, 0, len(steps)), make([]any, 0, len(steps))
	for _, st := range steps {
		detail := st.detail()
		if st.err != nil {
			detail = st.err.Error()
		}
		rows = append(rows, []string{st.kind(), st.name(), st.action, or(detail, "-")})
		objects = append(objects, map[string]any{"kind": st.kind(), "name": st.name(), "action": st.action, "detail": detail})
	}
	m, err := structpb.NewStruct(map[string]any{"items": objects})
	if err != nil {
		return err
	}
	return s.emit(m, func(w io.Writer) error { return s.table(w, []string{"KIND", "NAME", "ACTION", "DETAIL"}, rows) })
}

// total is what the exit status tells of an import: that of the items that failed, if it is the same for all.
func total(steps []*step) error {
	f, n := &failure{}, 0
	for _, st := range steps {
		if st.err == nil {
			continue
		}
		exit := exitOther
		if one, ok := errors.AsType[*failure](st.err); ok {
			exit = one.exit
		}
		if n++; n > 1 && exit != f.exit {
			exit = exitOther
		}
		f.exit = exit
	}
	if n == 0 {
		return nil
	}
	f.what = fmt.Sprintf("%d of %d items did not go", n, len(steps))
	f.action = "mend them and run it again: what is done is not done twice"
	return f
}
