// Command messagevet is a check for go vet: no message of the protocol is printed, logged or encoded as a whole. A message may hold a token,
// and protobuf for Go prints fields that are marked debug_redact like any other (golang/protobuf#1655).
//
//	go vet -vettool=bin/messagevet ./...
package main

import "golang.org/x/tools/go/analysis/unitchecker"

func main() { unitchecker.Main(Analyzer) }
