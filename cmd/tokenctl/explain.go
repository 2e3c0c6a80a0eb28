package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tokenbroker/tokenbroker/explain"
)

func (c *cli) explainCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "explain [WORD]", Short: "Say what a reason, state, cause, error code or exit status means, and what to do", Args: atMost("WORD"),
		Long: `Says what a word of an error, a status or an event means: the reason of an error, the state of a credential, the cause that the
broker found, the error code of a provider, a finding of policy lint, a fault that audit verify found; and an exit status of tokenctl, as 6.
Without a word it lists all but these. It needs no broker.`,
		Example: `  tokenctl explain REAUTHORIZATION_REQUIRED
  tokenctl explain invalid_grant
  tokenctl explain 6`,
		ValidArgsFunction: func(_ *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return beginning(explain.All(), begun), cobra.ShellCompDirectiveNoFileComp
		}}
	cmd.RunE = c.do(func(_ context.Context, _ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.explainAll()
		}
		if status, err := strconv.Atoi(args[0]); err == nil {
			return c.explainExit(status)
		}
		e, ok := explain.Lookup(args[0])
		if !ok {
			return unknownWord(args[0])
		}
		m, err := structpb.NewStruct(map[string]any{"name": e.Name, "kind": string(e.Kind), "title": e.Title, "meaning": e.Meaning, "status": e.Status,
			"recoveryAction": string(e.Recovery), "do": e.Do, "command": e.Fill("CREDENTIAL", "CLIENT")})
		if err != nil {
			return err
		}
		return c.emit(m, func(w io.Writer) error { return c.explainOne(w, e) })
	})
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

// explainExit says what an exit status means.
func (c *cli) explainExit(status int) error {
	for _, e := range exits {
		if e.status != status {
			continue
		}
		m, err := structpb.NewStruct(map[string]any{"name": strconv.Itoa(status), "kind": "exit status", "title": e.means, "do": e.do})
		if err != nil {
			return err
		}
		return c.emit(m, func(w io.Writer) error {
			rows := [][2]string{{"What", e.means}}
			return describe(w, []section{{strconv.Itoa(status) + ", an exit status of tokenctl", append(rows, folded("Do", e.do)...)}})
		})
	}
	return &failure{exit: exitNotFound, what: "tokenctl ends with no such status by itself: it may be that of the command that tokenctl exec or tokenctl curl ran",
		action: "look it up there; an HTTP status is explained as http_503", do: "tokenctl --help"}
}

// folded are the rows of a long text.
func folded(name, text string) (rows [][2]string) {
	for i, line := range fold(text, 100) {
		rows = append(rows, [2]string{map[bool]string{true: name}[i == 0], line})
	}
	return rows
}

// beginning are the names that begin with what was typed, in any case.
func beginning(all []explain.Entry, begun string) (names []string) {
	for _, e := range all {
		if len(e.Name) >= len(begun) && strings.EqualFold(e.Name[:len(begun)], begun) {
			names = append(names, e.Name)
		}
	}
	return names
}

func (c *cli) explainOne(w io.Writer, e explain.Entry) error {
	rows := slices.Concat([][2]string{{"What", e.Title}}, folded("Means", e.Meaning), folded("Do", e.Do))
	if command := e.Fill("CREDENTIAL", "CLIENT"); command != "" {
		rows = append(rows, [2]string{"Command", command})
	}
	rows = append(rows, [2]string{"Who acts", or(recoveries[string(e.Recovery)], "-")})
	if e.Status != "" {
		rows = append(rows, [2]string{"gRPC code", e.Status})
	}
	return describe(w, []section{{e.Name + ", a " + string(e.Kind), rows}})
}

func (c *cli) explainAll() error {
	all := explain.All()
	rows, objects := make([][]string, 0, len(all)), make([]any, 0, len(all))
	for _, e := range all {
		rows = append(rows, []string{e.Name, string(e.Kind), e.Title})
		objects = append(objects, map[string]any{"name": e.Name, "kind": string(e.Kind), "title": e.Title})
	}
	m, err := structpb.NewStruct(map[string]any{"entries": objects})
	if err != nil {
		return err
	}
	return c.emit(m, func(w io.Writer) error { return c.table(w, []string{"WORD", "KIND", "WHAT"}, rows) })
}

// fold breaks a text into lines of a width.
func fold(text string, width int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return append(lines, line)
}

// unknownWord names the words that are like one that is not known. It is not repeated: it may be a secret in the wrong place.
func unknownWord(word string) error {
	type near struct {
		name string
		far  int
	}
	var like []near
	for _, e := range explain.All() {
		if d := distance(strings.ToLower(word), strings.ToLower(e.Name)); d <= max(2, len(e.Name)/4) {
			like = append(like, near{e.Name, d})
		}
	}
	slices.SortStableFunc(like, func(a, b near) int { return cmp.Compare(a.far, b.far) })
	f := &failure{exit: exitNotFound, what: "there is no such word", do: "tokenctl explain"}
	if len(like) > 0 {
		f.what += fmt.Sprintf(": did you mean %s?", like[0].name)
		f.do = "tokenctl explain " + like[0].name
	}
	return f
}

// distance is how many letters have to be changed, added or taken away to make one text of another (Levenshtein).
func distance(a, b string) int {
	if len(a) > 100 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
