package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/metadata"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func (c *cli) auditTail() *cobra.Command {
	f := &auditFilter{}
	t := &auditTailing{}
	cmd := &cobra.Command{Use: "tail", Short: "Print records of the audit trail as they are written", Args: takes(),
		Long: `Prints the last records that fit, the newest last, and then each new one, until Ctrl-C or --count records. When the
connection is lost it says so on standard error and connects again; what was written meanwhile is printed then, as far as it
is among the last 1000.`,
		Example: `  tokenctl audit tail --decision deny
  tokenctl audit tail --recent 0 --credential 'example/*' -o json`}
	cmd.RunE = c.with(func(ctx context.Context, s *session, _ []string) error {
		if err := f.check(false); err != nil {
			return err
		}
		t.session, t.filter = s, &f.AuditFilter
		return t.run(ctx)
	})
	f.flags(c, cmd)
	cmd.Flags().Int32Var(&t.recent, "recent", 10, "how many of the last records to begin with, at most 1000")
	cmd.Flags().IntVar(&t.left, "count", 0, "end after so many records (default: never)")
	c.outputs(cmd, "table", "json")
	return cmd
}

// auditTailing follows the trail over connections.
type auditTailing struct {
	*session
	filter *tokenbrokerv1.AuditFilter
	recent int32
	left   int    // records to print yet; 0 = no end
	last   uint64 // number of the newest record that was printed
	live   bool   // the stream answered
	said   string // trouble that was told last

	headed bool      // the heading was printed
	since  time.Time // nothing older is printed; zero = no limit
}

// steady is how long a stream has to hold before trouble counts from the beginning again.
const steady = 10 * time.Second

func (t *auditTailing) run(ctx context.Context) error {
	for failures, ever := 0, false; ; failures++ {
		t.live = false
		began := time.Now()
		err := t.follow(ctx)
		if errors.Is(err, errEnough) {
			return nil
		}
		if t.live && time.Since(began) > steady {
			failures = 0
		}
		if t.live && !ever {
			ever = true
			if t.recent == 0 { // and until a record was printed there is no number to go by
				t.since = began
			}
			t.recent = 1000 // what was written meanwhile
		}
		f, ok := errors.AsType[*failure](err)
		if !ok || f.exit != exitLater || !ever || ctx.Err() != nil {
			return err
		}
		if text := f.Error(); text != t.said {
			t.said = text
			_, _ = fmt.Fprintf(t.errs, "tokenctl: %s; connecting again\n", clean(text))
		}
		if err := wait(ctx, max(delay(failures), f.again)); err != nil {
			return err
		}
	}
}

// opened notes that the broker took the request: it sends a header before the first record, and none with a refusal.
func (t *auditTailing) opened() error {
	t.live = true
	if t.headed || t.format == "json" || t.noHeaders {
		return nil
	}
	t.headed = true
	return t.line(auditColumns)
}

// follow reads one stream to its end.
func (t *auditTailing) follow(ctx context.Context) error {
	bound, cancel := context.WithCancel(ctx)
	defer cancel()
	watchdog := time.AfterFunc(t.timeout, cancel)
	defer watchdog.Stop()
	stream, err := t.audits.TailAuditRecords(bound, &tokenbrokerv1.TailAuditRecordsRequest{Filter: t.filter, Recent: t.recent})
	var header metadata.MD
	if err == nil {
		header, err = stream.Header()
	}
	if err == nil && header != nil && watchdog.Stop() {
		if err := t.opened(); err != nil {
			return err
		}
	}
	for err == nil {
		var m *tokenbrokerv1.TailAuditRecordsResponse
		if m, err = stream.Recv(); err != nil {
			break
		}
		t.said = ""
		if err := t.print(m); err != nil {
			return err
		}
	}
	if bound.Err() != nil && ctx.Err() == nil {
		return &failure{exit: exitLater, what: "the broker says nothing", err: err}
	}
	return t.explain(ctx, err, target{noun: "credential"})
}

// print prints a record, unless it is known from an earlier connection.
func (t *auditTailing) print(m *tokenbrokerv1.TailAuditRecordsResponse) error {
	r := m.GetRecord()
	if r.GetSeq() <= t.last || r.GetTime().AsTime().Before(t.since) {
		return nil
	}
	t.last = r.GetSeq()
	var err error
	if t.format == "json" {
		err = jsonLine(t.out, r)
	} else {
		err = t.line(auditRow(r))
	}
	if t.left--; err == nil && t.left == 0 {
		return errEnough
	}
	return err
}

// line prints columns whose width is known before the rows are.
func (t *auditTailing) line(row []string) error {
	widths := []int{8, 20, 44, 28, 28, 24, 0}
	var b strings.Builder
	for i, cell := range row {
		fmt.Fprintf(&b, "%-*s  ", widths[i], clean(cell))
	}
	_, err := fmt.Fprintln(t.out, strings.TrimRight(b.String(), " "))
	return err
}
