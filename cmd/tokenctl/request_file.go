package main

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/tokenbroker/tokenbroker"
)

// maxRequest bounds a request file. The broker takes far less.
const maxRequest = 1 << 20

// besideFile are the flags that go with -f.
var besideFile = []string{"filename", "validate-only", "output", "no-headers", "refresh-token-stdin", "refresh-token-file", "secret-stdin", "secret-file"}

// alone refuses what the file says already.
func alone(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("with -f the name comes from the file: leave out %q", args[0])
	}
	var extra []string
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if !slices.Contains(besideFile, f.Name) && cmd.InheritedFlags().Lookup(f.Name) == nil {
			extra = append(extra, "--"+f.Name)
		}
	})
	if len(extra) > 0 {
		return usagef("with -f the file says it all: leave out %s", strings.Join(extra, ", "))
	}
	return nil
}

// load reads a request in JSON or YAML, strictly. The field that holds a secret is taken out before anything can quote it in an error.
func (c *cli) load(ctx context.Context, path string, m proto.Message, secretField string) (tokenbroker.Secret, error) {
	data, err := c.slurp(ctx, path)
	if err != nil {
		return tokenbroker.Secret{}, err
	}
	return parseRequest(path, data, m, secretField)
}

func (c *cli) slurp(ctx context.Context, path string) ([]byte, error) {
	in := c.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, usagef("%v", err)
		}
		defer f.Close()
		in = f
	}
	defer c.interruptible(ctx, func() {})()
	data, err := io.ReadAll(io.LimitReader(in, maxRequest+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxRequest {
		return nil, usagef("%s has more than %d bytes: is it the right file?", path, maxRequest)
	}
	return data, nil
}

// position is how an error of the YAML parser begins. The rest of it may quote the file.
var position = regexp.MustCompile(`^\[(\d+):(\d+)\]`)

func parseRequest(path string, data []byte, m proto.Message, secretField string) (secret tokenbroker.Secret, err error) {
	var members map[string]any
	if err := yaml.Unmarshal(data, &members); err != nil { // JSON is YAML
		at := ""
		if p := position.FindStringSubmatch(err.Error()); p != nil {
			at = " at line " + p[1] + ", column " + p[2]
		}
		return secret, usagef("%s is no valid JSON or YAML object%s, or has a key twice", path, at)
	}
	for _, name := range []string{secretField, camel(secretField)} {
		v, ok := members[name]
		if !ok {
			continue
		}
		text, isText := v.(string)
		if !isText || !secret.IsZero() {
			return secret, usagef("%s: %s: give one string", path, name)
		}
		secret = tokenbroker.NewSecret(text)
		delete(members, name)
	}
	rest, err := json.Marshal(members)
	if err != nil {
		return secret, usagef("%s: has what JSON can't hold, such as a key that is no string", path)
	}
	if err := protojson.Unmarshal(rest, m); err != nil {
		return secret, usagef("%s: %s", path, strings.TrimSpace(offset.ReplaceAllString(err.Error(), "")))
	}
	return secret, nil
}

// offset is where protojson found an error, in a text that is not the file's. It varies the space on purpose.
var offset = regexp.MustCompile(`^proto:\p{Zs}*|\(line \d+:\d+\):\p{Zs}*`)

// camel is a field's name in JSON.
func camel(field string) string {
	first, rest, ok := strings.Cut(field, "_")
	for ok {
		var part string
		part, rest, ok = strings.Cut(rest, "_")
		first += strings.ToUpper(part[:1]) + part[1:]
	}
	return first
}

// keys are a table's, in order.
func keys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
