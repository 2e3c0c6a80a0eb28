package main

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// helpWidth is how wide help is: what a terminal of a hundred columns shows without breaking lines.
const helpWidth = 100

// readable has the help of a command, and of all below it, fit a terminal.
func readable(root *cobra.Command) {
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		text := strings.TrimRight(refill(cmp.Or(cmd.Long, cmd.Short)), " \n")
		_, _ = fmt.Fprint(cmd.OutOrStdout(), text, "\n\n", cmd.UsageString())
	})
	usage := root.UsageTemplate()
	for _, f := range []string{"LocalFlags.FlagUsages", "InheritedFlags.FlagUsages"} {
		usage = strings.ReplaceAll(usage, f, fmt.Sprintf("%sWrapped %d", f, helpWidth))
	}
	root.SetUsageTemplate(usage)
}

// row is a line of a list: a term, and behind two blanks or more what it means.
var row = regexp.MustCompile(`^( +\S+(?: \S+)*  +)\S`)

// refill breaks the paragraphs of a text anew. What is indented stays a line of its own, unless it goes on with the row above it.
func refill(text string) string {
	var out strings.Builder
	var words string // of what is being gathered
	indent, hang := "", ""
	flush := func() {
		if words != "" {
			breakLines(&out, words, indent, hang)
		}
		words, indent, hang = "", "", ""
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \n")
		bare := strings.TrimLeft(line, " ")
		lead := line[:len(line)-len(bare)]
		switch {
		case bare == "":
			flush()
			out.WriteByte('\n')
		case words != "" && lead == hang:
			words += " " + bare
		default:
			flush()
			words, indent, hang = bare, lead, lead
			if m := row.FindStringSubmatch(line); m != nil {
				indent, hang, words = m[1], strings.Repeat(" ", utf8.RuneCountInString(m[1])), line[len(m[1]):]
			} else if lead != "" {
				hang = lead + "    " // a command goes on further in
			}
		}
	}
	flush()
	return out.String()
}

// breakLines writes words in lines that fit.
func breakLines(out *strings.Builder, words, indent, hang string) {
	out.WriteString(indent)
	at := utf8.RuneCountInString(indent)
	for i, w := range strings.Split(words, " ") {
		n := utf8.RuneCountInString(w)
		switch {
		case i == 0:
		case at+1+n > helpWidth:
			out.WriteString("\n" + hang)
			at = utf8.RuneCountInString(hang)
		default:
			out.WriteByte(' ')
			at++
		}
		out.WriteString(w)
		at += n
	}
	out.WriteByte('\n')
}
