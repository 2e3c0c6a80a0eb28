package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func (c *cli) auditCommand() *cobra.Command {
	return c.group("audit", "Read the audit trail: who was given what, when, by which rule", c.auditList(), c.auditTail(), c.auditFind(), c.auditVerify())
}

// auditFilter is the flags that pick records.
type auditFilter struct {
	tokenbrokerv1.AuditFilter
	since, until string
}

func (f *auditFilter) flags(c *cli, cmd *cobra.Command) {
	p := cmd.Flags()
	p.StringVar(&f.Identity, "identity", "", `who: a SPIFFE ID, or a pattern such as "spiffe://example.org/job/*"`)
	p.StringVar(&f.Credential, "credential", "", "on which credential: a name, or a pattern")
	p.StringVar(&f.OauthClient, "client", "", "on which OAuth client: a name, or a pattern")
	p.StringVar(&f.Action, "action", "", `what: an action of the policy, or a family as "token.*"`)
	p.StringSliceVar(&f.Kinds, "kind", nil, "kinds of records: "+strings.Join(auditKinds, ", "))
	p.StringVar(&f.Decision, "decision", "", "allow or deny")
	p.StringVar(&f.Rule, "rule", "", "the rule that allowed it")
	p.Uint64Var(&f.Generation, "generation", 0, "the generation of the token")
	p.StringVar(&f.RequestId, "request", "", "the call, or the stream, by its id")
	p.StringVar(&f.Code, "code", "", `how it ended: "OK", or the reason of the error`)
	complete(cmd, "kind", auditKinds...)
	complete(cmd, "decision", "allow", "deny")
	complete(cmd, "action", policyActions()...)
	c.completeClient(cmd)
	_ = cmd.RegisterFlagCompletionFunc("credential", func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return c.credentialNames(1)(cmd, nil, begun)
	})
}

var auditKinds = []string{"call_intent", "call", "exchange_intent", "exchange_result", "revocation", "deliver", "stream_open", "stream_close",
	"system", "checkpoint"}

// check refuses what no record can have: the broker would find none, and a typing error would pass for an answer.
func (f *auditFilter) check(local bool) error {
	for _, kind := range f.Kinds {
		if !slices.Contains(auditKinds, kind) {
			return usagef("--kind: there is no %q; kinds are %s", kind, strings.Join(auditKinds, ", "))
		}
	}
	if a := f.Action; a != "" && !strings.Contains(a, ".") && a != "start" && a != "stop" {
		return usagef(`--action: %q is no action; give one as "token.get", or a family as "token.*"`, a)
	}
	if id := f.Identity; id != "" && !local && !strings.HasPrefix(id, "spiffe://") && !strings.HasPrefix(id, "dns:") && !strings.HasPrefix(id, "*") {
		return usagef(`--identity: %q is no identity; give "spiffe://…" or "dns:…", or a pattern of one`, id)
	}
	return nil
}

// times reads --since and --until.
func (f *auditFilter) times(now time.Time) (err error) {
	if f.StartTime, err = pastTime("since", f.since, now); err == nil {
		f.EndTime, err = pastTime("until", f.until, now)
	}
	return err
}

// pastTime is a time, or how long ago it was.
func pastTime(flag, text string, now time.Time) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // no time is no error
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return timestamppb.New(now.Add(-d)), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t, err = time.Parse(time.DateOnly, text)
	}
	if err != nil {
		return nil, usagef(`--%s: give a time as "2026-03-31T12:00:00Z", a day (in UTC), or how long ago it was, as "1h30m"`, flag)
	}
	return timestamppb.New(t), nil
}

func (c *cli) auditList() *cobra.Command {
	f := &auditFilter{}
	var limit int
	var file string
	cmd := &cobra.Command{Use: "list", Short: "List records of the audit trail, the newest first", Args: takes(), Aliases: []string{"ls"},
		Long: `Lists records of the audit trail, the newest first: of credentials and OAuth clients on which the policy gives you
audit.read. What is about neither, as a start or a new policy, needs a rule for all credentials ("**").

With --file it reads a trail on this host, such as that of an agent, and asks no broker.`,
		Example: `  tokenctl audit list --since 1h --credential example/reports
  tokenctl audit list --decision deny --action 'token.*' --limit 200
  tokenctl audit list --since 24h --kind system -o json
  tokenctl audit list --file agent-audit.jsonl --credential example/reports --generation 42`}
	cmd.RunE = c.do(func(ctx context.Context, _ *cobra.Command, _ []string) error {
		if limit < 1 {
			return usagef("--limit: give 1 or more")
		}
		if err := errors.Join(f.check(file != ""), f.times(time.Now())); err != nil {
			return err
		}
		return c.listAudit(ctx, f, limit, file)
	})
	f.flags(c, cmd)
	cmd.Flags().StringVar(&file, "file", "", "read the trail in this `file`, and those that were rotated beside it, in place of the broker's")
	cmd.Flags().StringVar(&f.since, "since", "", `not before: a time, or how long ago, as "1h"`)
	cmd.Flags().StringVar(&f.until, "until", "", "before: likewise")
	cmd.Flags().IntVar(&limit, "limit", 50, "list so many at most")
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

// listAudit lists records of the broker's trail, or of one in a file.
func (c *cli) listAudit(ctx context.Context, f *auditFilter, limit int, file string) error {
	s := &session{cli: c}
	var all *tokenbrokerv1.ListAuditRecordsResponse
	var err error
	if file != "" {
		all, err = localTrail(ctx, file, &f.AuditFilter, limit)
	} else if s, err = c.connect(); err == nil {
		defer s.Close()
		all, err = s.auditPages(ctx, &f.AuditFilter, limit)
	}
	if err != nil {
		return err
	}
	return s.emit(all, func(w io.Writer) error { return s.auditRows(w, all) })
}

// auditPages reads pages until there are as many records as are wanted. A page may be empty and yet not the last.
func (s *session) auditPages(ctx context.Context, f *tokenbrokerv1.AuditFilter, limit int) (*tokenbrokerv1.ListAuditRecordsResponse, error) {
	all := &tokenbrokerv1.ListAuditRecordsResponse{}
	for {
		left := limit - len(all.GetRecords())
		page, err := call(ctx, s, s.audits.ListAuditRecords, &tokenbrokerv1.ListAuditRecordsRequest{Filter: f, PageToken: all.GetNextPageToken(),
			PageSize: int32(min(left, 1000))})
		if err != nil {
			return nil, err
		}
		all.Records = append(all.Records, page.GetRecords()...)
		all.NextPageToken, all.OldestTime = page.GetNextPageToken(), page.GetOldestTime()
		if all.GetNextPageToken() == "" || len(all.GetRecords()) >= limit {
			return all, nil
		}
	}
}

func (s *session) auditRows(w io.Writer, all *tokenbrokerv1.ListAuditRecordsResponse) error {
	if len(all.GetRecords()) == 0 {
		return s.none("records")
	}
	rows := make([][]string, 0, len(all.GetRecords()))
	for _, r := range all.GetRecords() {
		rows = append(rows, auditRow(r))
	}
	if err := s.table(w, auditColumns, rows); err != nil || all.GetNextPageToken() == "" || all.GetRecords()[len(rows)-1].GetSeq() <= 1 {
		return err
	}
	_, err := fmt.Fprintf(s.errs, "there are more: --limit, or --until %s\n", stamp(all.GetRecords()[len(rows)-1].GetTime().AsTime().Add(time.Second)))
	return err
}

var auditColumns = []string{"SEQ", "TIME", "IDENTITY", "WHAT", "ON", "RESULT", "RULE"}

func auditRow(r *tokenbrokerv1.AuditRecord) []string {
	return []string{fmt.Sprint(r.GetSeq()), stamp(r.GetTime().AsTime()), or(r.GetIdentity(), "-"), auditWhat(r),
		or(or(r.GetCredential(), r.GetOauthClient()), "-"), auditResult(r), or(r.GetRule(), "-")}
}

// auditWhat is what a record is about, in a few words.
func auditWhat(r *tokenbrokerv1.AuditRecord) string {
	switch r.GetKind() {
	case "call", "system":
		return or(r.GetAction(), r.GetKind())
	case "call_intent":
		return r.GetAction() + " begins"
	case "exchange_intent":
		return "token request begins"
	case "exchange_result":
		return "token request"
	case "deliver":
		return fmt.Sprintf("push to %s", counted(len(r.GetStreams()), "stream"))
	case "stream_open":
		return r.GetAction() + " opens"
	case "stream_close":
		return r.GetAction() + " ends after " + round(r.GetLatency().AsDuration())
	}
	return r.GetKind()
}

// auditResult is how it ended, in a few words.
func auditResult(r *tokenbrokerv1.AuditRecord) string {
	var words []string
	for _, word := range []string{r.GetDecision(), r.GetReason(), r.GetCode()} {
		if word != "" && !(word == "OK" && len(words) > 0) {
			words = append(words, word)
		}
	}
	if r.GetMode() != "" {
		words = append(words, "("+r.GetMode()+" mode)")
	}
	if r.GetCount() > 0 {
		words = append(words, fmt.Sprintf("×%d", r.GetCount()))
	}
	if r.GetGeneration() > 0 {
		words = append(words, fmt.Sprintf("generation %d", r.GetGeneration()))
	}
	return or(strings.Join(words, " "), "-")
}
