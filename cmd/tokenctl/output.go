package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// outputs gives a command -o. The first format is the default.
func (c *cli) outputs(cmd *cobra.Command, formats ...string) {
	var format string // not c.format itself: the defaults of commands differ
	cmd.Flags().StringVarP(&format, "output", "o", formats[0], "output `format`: "+strings.Join(formats, ", "))
	if slices.Contains(formats, "table") {
		cmd.Flags().BoolVar(&c.noHeaders, "no-headers", false, "leave out the table's first line")
	}
	complete(cmd, "output", formats...)
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if c.format = format; !slices.Contains(formats, format) {
			c.started = true
			return usageError(fmt.Sprintf("--output: give one of %s", strings.Join(formats, ", ")), cmd.CommandPath()+" --help")
		}
		return run(cmd, args)
	}
}

// emit prints a reply as -o says; table prints it for people.
func (c *cli) emit(m proto.Message, table func(io.Writer) error) error {
	switch c.format {
	case "json", "yaml":
		data, err := encode(m, c.format)
		if err != nil {
			return err
		}
		_, err = c.out.Write(data)
		return err
	default:
		return table(c.out)
	}
}

// encode is a message in JSON or YAML of the same structure, safe for a terminal. Zero values are there, so that a script need not guess.
func encode(m proto.Message, format string) ([]byte, error) {
	data, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m) //nolint:forbidigo // replies of operators hold no secret; that of get is what was asked for
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer // protojson varies its spaces on purpose
	if err := json.Indent(&b, data, "", "  "); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	data = cleanJSON(b.Bytes())
	if format == "json" {
		return data, nil
	}
	return yaml.JSONToYAML(literal(data))
}

// literal doubles the backslash of the escapes that YAML would undo and print as the control characters that they stand for.
func literal(data []byte) []byte {
	out := make([]byte, 0, len(data))
	for i := 0; i < len(data); i++ {
		out = append(out, data[i])
		if data[i] != '\\' {
			continue
		}
		i++ // JSON has no backslash at the end
		if strings.IndexByte("ubfr", data[i]) >= 0 {
			out = append(out, '\\')
		}
		out = append(out, data[i])
	}
	return out
}

// table prints rows in columns.
func (c *cli) table(w io.Writer, header []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if !c.noHeaders {
		rows = append([][]string{header}, rows...)
	}
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = clean(cell)
		}
		if _, err := fmt.Fprintln(t, strings.Join(cells, "\t")); err != nil {
			return err
		}
	}
	return t.Flush()
}

// section is a part of what describe prints.
type section struct {
	title string
	rows  [][2]string
}

func describe(w io.Writer, sections []section) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i, s := range sections {
		if i > 0 {
			_, _ = fmt.Fprintln(t) // Flush reports it
		}
		_, _ = fmt.Fprintln(t, clean(s.title))
		for _, row := range s.rows {
			_, _ = fmt.Fprintf(t, "  %s\t%s\n", clean(row[0]), clean(row[1]))
		}
	}
	return t.Flush()
}

// stamp is a time for people and scripts alike.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// relative is a time as seen from now: "in 4m12s", "3h ago", "-" if there is none.
func relative(t *timestamppb.Timestamp, now time.Time) string {
	if t == nil {
		return "-"
	}
	d := t.AsTime().Sub(now)
	if d < 0 {
		return round(-d) + " ago"
	}
	return "in " + round(d)
}

// both is a time with how far that is from now.
func both(t *timestamppb.Timestamp, now time.Time, absent string) string {
	if t == nil {
		return absent
	}
	return stamp(t.AsTime()) + " (" + relative(t, now) + ")"
}

// round is a duration in its two largest units.
func round(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	default:
		return fmt.Sprintf("%ds", d/time.Second)
	}
}

// enum is a value of a protocol enumeration without the prefix that all of its values have.
func enum(value, prefix string) string { return strings.TrimPrefix(value, prefix) }

// list is several words in a cell.
func list(items []string, absent string) string {
	if len(items) == 0 {
		return absent
	}
	return strings.Join(items, " ")
}

// pairs are labels in order.
func pairs(m map[string]string) []string {
	var all []string
	for k, v := range m {
		all = append(all, k+"="+v)
	}
	slices.Sort(all)
	return all
}
