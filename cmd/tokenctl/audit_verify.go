package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tokenbroker/tokenbroker/audit"
)

func (c *cli) auditVerify() *cobra.Command {
	var key string
	var checkpoints []string
	var opts audit.VerifyOptions
	cmd := &cobra.Command{Use: "verify FILE…", Short: "Check that an audit trail is as the broker wrote it", Args: atLeast("FILE"),
		Long: `Checks the files of an audit trail, in any order: that no line was edited, taken out or moved, and, with --key, that the
trail is what the broker signed. Only checkpoints of a second place (--checkpoints) show for certain that nobody cut off the
end or wrote it all anew, and with them the trail has to be there from its beginning (or --from) on. It needs no broker.
Files whose names end with .gz are unpacked. The exit status is 1 if something is wrong with the trail.`,
		Example: `  tokenctl audit verify /var/log/tokenbroker/audit.jsonl* --key audit.pub --checkpoints /mnt/elsewhere/checkpoints.jsonl`}
	cmd.Flags().StringVar(&key, "key", "", "PEM `file` with the public keys of the broker's checkpoints")
	cmd.Flags().StringArrayVar(&checkpoints, "checkpoints", nil, "`file` with the checkpoints of the second place; may come again")
	cmd.Flags().Uint64Var(&opts.From, "from", 0, "number of the first `record` that has to be there, if older files were moved away")
	cmd.Flags().BoolVar(&opts.OtherTrails, "other-trails", false, "the second place may hold checkpoints of other trails")
	cmd.Flags().IntVar(&opts.Unchained, "unchained", 0, "how many `lines` of version 1 may stand in front, which no signature speaks for")
	cmd.RunE = c.do(func(ctx context.Context, _ *cobra.Command, args []string) error {
		if len(checkpoints) > 0 && key == "" {
			return usageError("--checkpoints needs --key: without the public key they prove nothing", "")
		}
		r, err := verifyTrail(ctx, args, key, checkpoints, opts)
		if err != nil {
			return err
		}
		if !r.Found() && !slices.ContainsFunc(r.Problems, func(p audit.Problem) bool { return p.Fault == audit.FaultTruncated }) {
			return usageError("no line of what was given is a record of an audit trail", "")
		}
		if err := c.showReport(&r); err != nil {
			return err
		}
		return damage(&r)
	})
	c.outputs(cmd, "text", "json", "yaml")
	return cmd
}

// verifyTrail reads the files and checks them.
func verifyTrail(ctx context.Context, files []string, key string, checkpoints []string, opts audit.VerifyOptions) (audit.Report, error) {
	if key != "" {
		data, err := os.ReadFile(key)
		if err != nil {
			return audit.Report{}, unreadable("--key", err)
		}
		if opts.Keys, err = audit.ParsePublicKeys(data); err != nil {
			return audit.Report{}, usagef("--key: %v", err)
		}
	}
	for _, path := range checkpoints {
		opts.Checkpoints = append(opts.Checkpoints, audit.FileSource(path))
	}
	trail := make([]audit.Source, 0, len(files))
	for _, path := range files {
		trail = append(trail, audit.FileSource(path))
	}
	if err := audit.Sort(ctx, trail); err != nil {
		return audit.Report{}, unreadableOf("FILE", err)
	}
	r, err := audit.Verify(ctx, trail, opts)
	if err != nil {
		return r, unreadableOf("FILE", err)
	}
	return r, nil
}

// unreadableOf is unreadable with the name of the file, where there are several and none can be a secret.
func unreadableOf(what string, err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		what = e.Path
	}
	return unreadable(what, err)
}

// unreadable is an error of reading, without the name if that may be misplaced.
func unreadable(what string, err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return usagef("%s can't be read: %v", what, err)
}

func (c *cli) showReport(r *audit.Report) error {
	problems := make([]any, 0, len(r.Problems))
	for _, p := range r.Problems {
		problems = append(problems, map[string]any{"fault": string(p.Fault), "file": p.File, "line": p.Line, "seq": number(p.Seq), "text": p.Text})
	}
	m, err := structpb.NewStruct(map[string]any{
		"ok": r.OK(), "trail": r.Trail, "lines": r.Lines, "first": number(r.First), "last": number(r.Last), "from": moment(r.From), "to": moment(r.To),
		"head": r.Head.String(), "unchained": r.Unchained, "torn": r.Torn, "crashTail": r.CrashTail, "gaps": r.Gaps, "refused": number(r.Refused), "deleted": r.Deleted,
		"keyed": r.Keyed, "checkpoints": r.Checkpoints, "witnessed": r.Witnessed, "foreign": r.Foreign, "older": r.Older, "signedTo": number(r.SignedTo), "open": number(r.Open),
		"problems": problems, "moreProblems": r.More,
	})
	if err != nil {
		return err
	}
	return c.emit(m, func(w io.Writer) error { return describe(w, reportSections(r)) })
}

// number is a number that JSON would round.
func number(n uint64) string { return fmt.Sprint(n) }

// moment is a time, "" for none.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return stamp(t)
}

func reportSections(r *audit.Report) []section {
	records := [][2]string{
		{"Lines", fmt.Sprint(r.Lines)},
		{"Records", fmt.Sprintf("%d to %d", r.First, r.Last)},
		{"Time", or(moment(r.From), "-") + " to " + or(moment(r.To), "-")},
	}
	if r.Unchained > 0 {
		records = append(records, [2]string{"Without a chain", fmt.Sprintf("%d lines of version 1", r.Unchained)})
	}
	if r.Torn > 0 {
		records = append(records, [2]string{"Left unfinished", fmt.Sprintf("%d lines, each told of", r.Torn)})
	}
	if r.CrashTail {
		records = append(records, [2]string{"Crash tail", "the last line is unfinished, as a crash leaves it or while it is written"})
	}
	if r.Gaps > 0 {
		records = append(records, [2]string{"Gaps", fmt.Sprintf("%d, with %d callers who were refused since the trail could not be written", r.Gaps, r.Refused)})
	}
	if r.Deleted > 0 {
		records = append(records, [2]string{"Deleted", fmt.Sprintf("%d times the file was deleted or cut off while the broker wrote it", r.Deleted)})
	}
	signed := [][2]string{{"Checked", "the chain alone: give --key to check signatures"}}
	if r.Keyed {
		to := fmt.Sprintf("all to record %d; nothing speaks yet for the %d behind it", r.SignedTo, r.Open)
		if r.SignedTo == 0 {
			to = "nothing"
		}
		signed = [][2]string{
			{"Checkpoints", fmt.Sprintf("%d good ones in the trail; %d in the second place that it agrees with", r.Checkpoints, r.Witnessed)},
			{"Signed", to},
		}
	}
	if r.Foreign > 0 {
		signed = append(signed, [2]string{"Other trails", fmt.Sprintf("%d checkpoints of the second place", r.Foreign)})
	}
	if r.Older > 0 {
		signed = append(signed, [2]string{"Older records", fmt.Sprintf("%d checkpoints of the second place speak of records in front of the first", r.Older)})
	}
	all := []section{{"Trail " + or(r.Trail, "-"), records}, {"Signatures", signed}}
	for _, p := range r.Problems {
		all = append(all, section{"Problem: " + string(p.Fault), [][2]string{{"Where", where(p)}, {"What", p.Text}}})
	}
	if r.More > 0 {
		all = append(all, section{"More problems", [][2]string{{"Not listed", fmt.Sprint(r.More)}}})
	}
	return all
}

// where is the place of a problem, as far as it has one.
func where(p audit.Problem) string {
	at := p.File
	if p.Line > 0 {
		at += fmt.Sprintf(", line %d", p.Line)
	}
	if p.Seq > 0 {
		at += fmt.Sprintf(", record %d", p.Seq)
	}
	return at
}

// damage is an error if the trail is not as it was written.
func damage(r *audit.Report) error {
	if r.OK() {
		return nil
	}
	p := r.Problems[0]
	return &failure{exit: exitOther, what: fmt.Sprintf("the audit trail is not as the broker wrote it: %s, the first is %q in %s",
		counted(len(r.Problems)+r.More, "problem"), p.Fault, where(p))}
}
