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
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// maxRequest bounds a request file. The broker takes far less.
const maxRequest = 1 << 20

// besideFile are the flags that go with -f.
var besideFile = []string{"filename", "validate-only", "dry-run", "output", "no-headers"}

// besides reports whether a flag goes with -f: those of the secrets do, so that the file need not hold any.
func besides(flag string) bool {
	return slices.Contains(besideFile, flag) || strings.HasSuffix(flag, "-stdin") || strings.HasSuffix(flag, "-file")
}

// alone refuses what the file says already.
func alone(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("with -f the name comes from the file: leave out the argument")
	}
	var extra []string
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if !besides(f.Name) && cmd.InheritedFlags().Lookup(f.Name) == nil {
			extra = append(extra, "--"+f.Name)
		}
	})
	if len(extra) > 0 {
		return usagef("with -f the file says it all: leave out %s", strings.Join(extra, ", "))
	}
	return nil
}

// load reads a request in JSON or YAML, strictly. The fields that hold secrets are taken out before anything can quote them in an error.
func (c *cli) load(ctx context.Context, path string, m proto.Message) error {
	data, err := c.slurp(ctx, "--filename", path)
	if err != nil {
		return err
	}
	return parseRequest(path, data, m)
}

func (c *cli) slurp(ctx context.Context, what, path string) ([]byte, error) {
	return c.slurpUpTo(ctx, what, path, maxRequest)
}

func (c *cli) slurpUpTo(ctx context.Context, what, path string, most int) ([]byte, error) {
	in := c.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, unopened(what, err)
		}
		defer f.Close()
		in = f
	}
	defer c.interruptible(ctx, func() {})()
	data, err := io.ReadAll(io.LimitReader(in, int64(most)+1))
	if err != nil {
		return nil, unopened(what, err)
	}
	if len(data) > most {
		return nil, usagef("%s: the file has more than %d bytes: is it the right one?", what, most)
	}
	return data, nil
}

// position is how an error of the YAML parser begins. The rest of it may quote the file.
var position = regexp.MustCompile(`^\[(\d+):(\d+)\]`)

func parseRequest(path string, data []byte, m proto.Message) error {
	members, err := parseObject(path, data)
	if err != nil {
		return err
	}
	if text := fill(m, members); text != "" {
		return usagef("%s: %s", path, text)
	}
	return nil
}

// parseObject reads JSON or YAML, each key once.
func parseObject(path string, data []byte) (members map[string]any, err error) {
	defer func() { // the YAML reader gives up on some files by a panic
		if recover() != nil {
			err = usagef("%s is no valid JSON or YAML object", path)
		}
	}()
	if err := yaml.Unmarshal(data, &members); err != nil { // JSON is YAML
		at := ""
		if p := position.FindStringSubmatch(err.Error()); p != nil {
			at = " at line " + p[1] + ", column " + p[2]
		}
		return nil, usagef("%s is no valid JSON or YAML object%s, or has a key twice", path, at)
	}
	return members, nil
}

// fill fills a message from members, which it takes its secrets out of. What it returns says what does not fit; it is empty if all does.
func fill(m proto.Message, members map[string]any) string {
	secrets := map[protoreflect.FieldDescriptor]string{}
	for _, field := range secretFields(m) {
		for _, name := range []string{string(field.Name()), field.JSONName()} {
			v, ok := members[name]
			if !ok {
				continue
			}
			text, isText := v.(string)
			if _, twice := secrets[field]; !isText || twice {
				return name + ": give one string"
			}
			secrets[field] = text
			delete(members, name)
		}
	}
	rest, err := json.Marshal(members)
	if err != nil {
		return "has what JSON can't hold, such as a key that is no string"
	}
	if err := protojson.Unmarshal(rest, m); err != nil {
		return or(misfit(m.ProtoReflect().New(), members, ""), "give each field once")
	}
	for field, text := range secrets {
		m.ProtoReflect().Set(field, protoreflect.ValueOfString(text))
	}
	return ""
}

// secretFields are the fields of a request that hold a secret: the protocol marks them.
func secretFields(m proto.Message) (secrets []protoreflect.FieldDescriptor) {
	fields := m.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if o, ok := fields.Get(i).Options().(*descriptorpb.FieldOptions); ok && o.GetDebugRedact() {
			secrets = append(secrets, fields.Get(i))
		}
	}
	return secrets
}

// misfit names the field for which a message can't be read, and says nothing of its value, as protojson does: a secret may be in the wrong
// place. It is empty if each field alone is well.
func misfit(m protoreflect.Message, members map[string]any, within string) string {
	fields := m.Descriptor().Fields()
	for _, key := range keys(members) {
		field := fields.ByJSONName(key)
		if field == nil {
			field = fields.ByTextName(key)
		}
		below, isObject := members[key].(map[string]any)
		switch {
		case field == nil && nameLike.MatchString(key):
			return "unknown field " + within + key
		case field == nil:
			return "unknown field in " + or(strings.TrimSuffix(within, "."), "the object")
		case isObject && ours(field):
			if text := misfit(m.NewField(field).Message(), below, within+key+"."); text != "" {
				return text
			}
		}
		alone, err := json.Marshal(map[string]any{key: members[key]})
		if err != nil || protojson.Unmarshal(alone, m.New().Interface()) != nil {
			if isObject && ours(field) {
				return within + key + ": give each field once"
			}
			return within + key + ": " + wanted(field)
		}
	}
	return ""
}

// ours reports whether a field holds a message of the protocol, which has fields to look into.
func ours(field protoreflect.FieldDescriptor) bool {
	return field.Message() != nil && !field.IsMap() && !field.IsList() && field.Message().ParentFile().Package() == field.ParentFile().Package()
}

// wanted is what a field takes.
func wanted(field protoreflect.FieldDescriptor) string {
	switch {
	case field.IsMap():
		return "give an object of strings"
	case field.IsList():
		return "give a list of strings"
	case field.Enum() != nil:
		var names []string
		for i := range field.Enum().Values().Len() {
			if v := field.Enum().Values().Get(i); v.Number() != 0 {
				names = append(names, string(v.Name()))
			}
		}
		return "give one of " + strings.Join(names, ", ")
	case field.Message() != nil && field.Message().FullName() == "google.protobuf.Timestamp":
		return "give a time in RFC 3339"
	case field.Message() != nil && field.Message().FullName() == "google.protobuf.Duration":
		return "give a duration such as 3600s"
	case field.Message() != nil:
		return "give an object"
	default:
		return "give one " + field.Kind().String()
	}
}

// keys are a table's, in order.
func keys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
