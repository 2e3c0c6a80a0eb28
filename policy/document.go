package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// document reads a YAML tree and collects what is wrong with it. It walks the tree instead of decoding into a struct, as that
// stops at the first problem and knows no place for problems of meaning.
type document struct {
	what     string // it is, e.g. "policy"
	vain     string // what an empty one would do
	lines    []string
	problems []problem
}

// problem is one thing that is wrong, and where.
type problem struct {
	line, column int
	err          error
}

// item is one string of a list.
type item struct {
	text string
	node ast.Node
}

// bad notes a problem at a node.
func (d *document) bad(n ast.Node, format string, args ...any) {
	at := place(n)
	d.note(at.Line, at.Column, fmt.Errorf(format, args...))
}

// note notes a problem; line 0 means the file as a whole.
func (d *document) note(line, column int, err error) {
	if line > 0 {
		err = fmt.Errorf("line %d, column %d: %w", line, column, err)
	}
	d.problems = append(d.problems, problem{line, column, err})
}

// newDocument is a document that was not read yet.
func newDocument(what, vain string, data []byte) *document {
	return &document{what: what, vain: vain, lines: strings.Split(string(data), "\n")}
}

// maxDepth is how deep lists may nest, far beyond what means anything. The parser recurses, with time that grows by the square of the
// depth, and a stack that overflows can't be recovered from.
const maxDepth = 1000

// tooDeep reports whether lists on one line, or in brackets, could nest deeper than maxDepth. Those that are only indented need more
// bytes than a file may have. Brackets in comments count too, unless they are closed.
func tooDeep(data []byte) bool {
	brackets, dashes := 0, 0
	for i, c := range data {
		switch c {
		case '[', '{':
			brackets++
		case ']', '}':
			brackets = max(0, brackets-1)
		case '\n':
			dashes = 0
		case ' ', '\t':
			if i > 0 && data[i-1] == '-' {
				dashes++
			}
		}
		if brackets > maxDepth || dashes > maxDepth {
			return true
		}
	}
	return false
}

// open parses data and returns its one document, or nil with a problem noted.
func (d *document) open(data []byte) (root ast.Node) {
	switch {
	case len(data) > MaxFileBytes:
		d.note(0, 0, fmt.Errorf("%s is larger than %d bytes", d.what, MaxFileBytes))
		return nil
	case !utf8.Valid(data):
		d.note(0, 0, fmt.Errorf("%s is not valid UTF-8", d.what))
		return nil
	case tooDeep(data):
		d.note(0, 0, fmt.Errorf("%s is not read: its lists go more than %d deep", d.what, maxDepth))
		return nil
	}
	// A file that somebody is just writing must not take a running broker down, whatever it makes the YAML parser do.
	defer func() {
		if recover() != nil {
			d.note(0, 0, fmt.Errorf("%s is not YAML: the parser gave up on it", d.what))
			root = nil
		}
	}()
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey()) // mapping reports duplicates, all of them
	if err != nil {
		d.syntax(err)
		return nil
	}
	return d.single(file)
}

// single returns the root of the only document of a file.
func (d *document) single(file *ast.File) ast.Node {
	var roots []ast.Node
	for _, doc := range file.Docs {
		if _, comment := doc.Body.(*ast.CommentGroupNode); doc.Body != nil && !comment {
			roots = append(roots, doc.Body)
		}
	}
	switch len(roots) {
	case 0:
		d.note(0, 0, fmt.Errorf("%s is empty; it would %s", d.what, d.vain))
		return nil
	case 1:
		return roots[0]
	}
	d.bad(roots[1], "a second YAML document; a %s is one", d.what)
	return nil
}

// syntax notes an error of the YAML parser.
func (d *document) syntax(err error) {
	var at yaml.Error
	if !errors.As(err, &at) || at.GetToken() == nil || at.GetToken().Position == nil {
		d.note(0, 0, fmt.Errorf("%s is not YAML", d.what))
		return
	}
	pos, hint := at.GetToken().Position, ""
	if i := pos.Line - 1; i >= 0 && i < len(d.lines) && strings.Contains(d.lines[i], "*") {
		hint = "; quote a pattern that begins with *"
	}
	d.note(pos.Line, pos.Column, fmt.Errorf("%s%s", at.GetMessage(), hint))
}

// mapping returns the values of a mapping by key. Unknown, duplicate and valueless keys are problems.
func (d *document) mapping(n ast.Node, what string, known []string) map[string]ast.Node {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		d.bad(n, "%s must be a mapping with the keys %s", what, strings.Join(known, ", "))
		return nil
	}
	out := map[string]ast.Node{}
	for _, v := range m.Values {
		key := keyText(v.Key)
		switch {
		case !slices.Contains(known, key):
			d.bad(v.Key, "unknown key %q; known are %s", key, strings.Join(known, ", "))
		case out[key] != nil:
			d.bad(v.Key, "key %q is there twice", key)
		default:
			out[key] = v.Value
		}
	}
	return out
}

// keyText is the text of a key, or what is written there if it is none.
func keyText(k ast.MapKeyNode) string {
	if s, ok := k.(*ast.StringNode); ok {
		return s.Value
	}
	return k.GetToken().Value
}

// list returns the strings of a list; none for a nil node. A list that is there has at least one item, each once.
func (d *document) list(n ast.Node, key string) []item {
	if n == nil {
		return nil
	}
	seq, ok := n.(*ast.SequenceNode)
	if !ok || len(seq.Values) == 0 {
		d.bad(n, "%s must be a list of at least one item; or leave the key out", key)
		return nil
	}
	out := make([]item, 0, len(seq.Values))
	seen := map[string]bool{}
	for _, v := range seq.Values {
		s, ok := d.text(v, key)
		if !ok {
			continue
		}
		if seen[s] {
			d.bad(v, "%s: %q is there twice", key, s)
		}
		seen[s] = true
		out = append(out, item{s, v})
	}
	return out
}

// text returns a non-empty string.
func (d *document) text(n ast.Node, key string) (string, bool) {
	s, ok := n.(*ast.StringNode)
	switch {
	case n.Type() == ast.AliasType:
		d.bad(n, "%s: quote a pattern that begins with *; YAML aliases are refused", key)
		return "", false
	case !ok:
		d.bad(n, "%s: must be a plain string, quoted if need be", key)
		return "", false
	case s.Value == "":
		d.bad(n, "%s: is empty", key)
		return "", false
	}
	return s.Value, true
}

// place is where a node begins, line 0 if it does not say.
func place(n ast.Node) token.Position {
	m, ok := n.(*ast.MappingNode)
	if ok && len(m.Values) > 0 && !m.IsFlowStyle {
		n = m.Values[0].Key // the token of a block mapping is its first colon
	}
	if tk := n.GetToken(); tk != nil && tk.Position != nil {
		return *tk.Position
	}
	return token.Position{}
}

// err joins the problems in the order of the file.
func (d *document) err() error {
	slices.SortStableFunc(d.problems, func(a, b problem) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column))
	})
	errs := make([]error, len(d.problems))
	for i, p := range d.problems {
		errs[i] = p.err
	}
	return errors.Join(errs...)
}
