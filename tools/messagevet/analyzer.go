package main

import (
	"go/ast"
	"go/types"
	"slices"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/types/typeutil"
)

// Analyzer reports messages that are printed.
var Analyzer = &analysis.Analyzer{
	Name: "messagevet",
	Doc:  "report messages of the protocol that are printed, logged or encoded as a whole",
	URL:  "https://github.com/tokenbroker/tokenbroker/tree/main/tools/messagevet",
	Run:  run,
}

// messages is how the path of the package of the messages ends.
const messages = "/proto/tokenbroker/v1"

// printers are the packages whose functions and methods print what they are given.
var printers = map[string]bool{"fmt": true, "log": true, "log/slog": true, "errors": true, "encoding/json": true, "encoding/xml": true, "encoding/gob": true}

func run(pass *analysis.Pass) (any, error) {
	if strings.HasSuffix(pass.Pkg.Path(), messages) {
		return nil, nil
	}
	for _, file := range pass.Files {
		if strings.HasSuffix(pass.Fset.File(file.FileStart).Name(), "_test.go") {
			continue // a test may say what it got
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				check(pass, call)
			}
			return true
		})
	}
	return nil, nil
}

func check(pass *analysis.Pass, call *ast.CallExpr) {
	callee := typeutil.Callee(pass.TypesInfo, call)
	if callee == nil {
		return
	}
	if _, builtin := callee.(*types.Builtin); builtin && callee.Name() == "panic" && shows(pass, call.Args[0]) { // the runtime asks for its String
		pass.Reportf(call.Pos(), "a message of the protocol is passed to panic, and may hold a token: name the fields you want")
	}
	if sel, ok := call.Fun.(*ast.SelectorExpr); ok && callee.Name() == "String" && len(call.Args) == 0 && holds(pass.TypesInfo.TypeOf(sel.X), 1) {
		pass.Reportf(call.Pos(), "a message of the protocol is turned into text, and may hold a token: name the fields you want")
	}
	if callee.Pkg() == nil || !printers[callee.Pkg().Path()] {
		return
	}
	for _, arg := range call.Args {
		if shows(pass, arg) {
			pass.Reportf(arg.Pos(), "a message of the protocol is passed to %s.%s, and may hold a token: name the fields you want", callee.Pkg().Path(), callee.Name())
		}
	}
}

// shows reports whether a printer that is given the expression comes by a message, also where a conversion or a literal hides its type.
func shows(pass *analysis.Pass, e ast.Expr) bool {
	if holds(pass.TypesInfo.TypeOf(e), 4) {
		return true
	}
	switch e := ast.Unparen(e).(type) {
	case *ast.CallExpr:
		return pass.TypesInfo.Types[e.Fun].IsType() && shows(pass, e.Args[0])
	case *ast.CompositeLit:
		return slices.ContainsFunc(e.Elts, func(e ast.Expr) bool { return shows(pass, e) })
	case *ast.KeyValueExpr:
		return shows(pass, e.Value)
	}
	return false
}

// holds reports whether a value of the type is a message, or holds one at most depth levels down.
func holds(t types.Type, depth int) bool {
	if depth == 0 || t == nil {
		return false
	}
	if named, ok := types.Unalias(t).(*types.Named); ok {
		pkg := named.Obj().Pkg()
		if pkg != nil && strings.HasSuffix(pkg.Path(), messages) {
			_, message := named.Underlying().(*types.Struct)
			return message
		}
	}
	switch u := t.Underlying().(type) {
	case *types.Pointer:
		return holds(u.Elem(), depth)
	case *types.Slice:
		return holds(u.Elem(), depth-1)
	case *types.Array:
		return holds(u.Elem(), depth-1)
	case *types.Map:
		return holds(u.Key(), depth-1) || holds(u.Elem(), depth-1)
	case *types.Struct:
		for f := range u.Fields() {
			if holds(f.Type(), depth-1) {
				return true
			}
		}
	}
	return false
}
