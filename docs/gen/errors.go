package main

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/tokenbroker/tokenbroker/explain"
)

// errorTables puts the tables of package explain between the marks of a document.
func errorTables(old string) (string, error) {
	text := old
	for _, kind := range []explain.Kind{explain.KindReason, explain.KindRemoval, explain.KindState, explain.KindCause, explain.KindCode, explain.KindDenial,
		explain.KindFinding, explain.KindFault} {
		before, after, ok := cut(text, string(kind))
		if !ok {
			return "", fmt.Errorf("there are no marks for the table of each %s", kind)
		}
		text = before + table(kind) + after
	}
	return text, nil
}

// cut returns what is before and after a table, the marks included.
func cut(text, name string) (before, after string, ok bool) {
	begin, end := "<!-- begin "+name+": written by make docs -->\n", "<!-- end "+name+" -->"
	i := strings.Index(text, begin)
	j := strings.Index(text, end)
	if i < 0 || j < i {
		return "", "", false
	}
	return text[:i+len(begin)], text[j:], true
}

func table(kind explain.Kind) string {
	var b strings.Builder
	if kind == explain.KindReason {
		b.WriteString("| code (exit) | reason | means | do |\n|---|---|---|---|\n")
	} else {
		fmt.Fprintf(&b, "| %s | means | do |\n|---|---|---|\n", kind)
	}
	last := ""
	for _, e := range explain.All() {
		if e.Kind != kind {
			continue
		}
		if kind == explain.KindReason {
			code := status(e.Status)
			if code == last {
				code = ""
			} else {
				last = code
			}
			fmt.Fprintf(&b, "| %s ", code)
		}
		fmt.Fprintf(&b, "| `%s` | %s. %s | %s |\n", e.Name, cell(e.Title), cell(e.Meaning), cell(e.Do)+command(e))
	}
	return b.String()
}

// status is a gRPC code with the exit status of grpcurl.
func status(name string) string {
	var c codes.Code
	if err := c.UnmarshalJSON([]byte(strconv.Quote(name))); err != nil {
		return "any"
	}
	return fmt.Sprintf("%s (%d)", name, 64+uint32(c))
}

func command(e explain.Entry) string {
	if e.Command == "" {
		return ""
	}
	return " `" + e.Fill("CREDENTIAL", "CLIENT") + "`"
}

// cell makes a text fit into a cell of a table.
func cell(s string) string { return strings.NewReplacer("|", "\\|", "<", "&lt;").Replace(s) }
