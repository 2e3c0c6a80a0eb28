package main

import (
	"bytes"
	"fmt"
	"path/filepath"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/tokenbroker/tokenbroker"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// item is one OAuth client or credential of a file of many: one of client and cred is set.
type item struct {
	client *tokenbrokerv1.CreateOAuthClientRequest
	cred   *tokenbrokerv1.CreateCredentialRequest
}

func (it item) kind() string {
	if it.client != nil {
		return "client"
	}
	return "credential"
}

func (it item) name() string {
	if it.client != nil {
		return it.client.GetOauthClient()
	}
	return it.cred.GetCredential()
}

func (it item) request() proto.Message {
	if it.client != nil {
		return it.client
	}
	return it.cred
}

// secrets are the names of the secrets that come with it.
func (it item) secrets() (names []string) {
	m := it.request()
	for _, f := range secretFields(m) {
		if m.ProtoReflect().Get(f).String() != "" {
			names = append(names, string(f.Name()))
		}
	}
	return names
}

// parseItems reads a file of many, strictly: OAuth clients first, since credentials need them. Secrets are in files beside it, or in it.
func parseItems(path string, data []byte) ([]item, error) {
	members, err := parseObject(path, data)
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	if path == "-" {
		dir = "."
	}
	var all []item
	for _, part := range []struct {
		key string
		add func() item
	}{
		{"oauthClients", func() item { return item{client: &tokenbrokerv1.CreateOAuthClientRequest{}} }},
		{"credentials", func() item { return item{cred: &tokenbrokerv1.CreateCredentialRequest{}} }},
	} {
		entries, isList := members[part.key].([]any)
		if _, there := members[part.key]; there && !isList {
			return nil, usagef("%s: %s: give a list", path, part.key)
		}
		delete(members, part.key)
		for i, entry := range entries {
			it, at := part.add(), fmt.Sprintf("%s[%d]", part.key, i)
			object, ok := entry.(map[string]any)
			if !ok {
				return nil, usagef("%s: %s: give an object", path, at)
			}
			if text := it.read(dir, object); text != "" {
				return nil, usagef("%s: %s: %s", path, at, text)
			}
			all = append(all, it)
		}
	}
	if len(members) > 0 {
		return nil, usagef("%s: there is a key besides oauthClients and credentials", path)
	}
	return all, unique(path, all)
}

// unique refuses a file that names nothing, or one thing twice.
func unique(path string, all []item) error {
	if len(all) == 0 {
		return usagef("%s has no oauthClients and no credentials", path)
	}
	seen := map[string]bool{}
	for _, it := range all {
		key := it.kind() + " " + it.name()
		switch {
		case it.name() == "":
			return usagef("%s: a %s has no name", path, it.kind())
		case seen[key]:
			return usagef("%s: %s is there twice", path, key)
		}
		seen[key] = true
	}
	return nil
}

// read fills an item from an object of the file. What it returns says what does not fit.
func (it item) read(dir string, object map[string]any) string {
	m := it.request()
	fromFile := map[protoreflect.FieldDescriptor]string{}
	filed := secretFields(m)
	if f := field(m, "certificate"); f != nil {
		filed = append(filed, f)
	}
	for _, f := range filed {
		for _, key := range []string{f.JSONName() + "File", string(f.Name()) + "_file"} {
			v, ok := object[key]
			if !ok {
				continue
			}
			text, isText := v.(string)
			if _, twice := fromFile[f]; !isText || twice {
				return key + ": give one name of a file"
			}
			value, why := secretFile(dir, text)
			if why != "" {
				return key + ": " + why
			}
			fromFile[f] = value
			delete(object, key)
		}
	}
	if _, ok := object["validateOnly"]; ok {
		return "validateOnly: it is a flag here: --validate-only"
	}
	if text := fill(m, object); text != "" {
		return text
	}
	for f, value := range fromFile {
		if m.ProtoReflect().Get(f).String() != "" {
			return f.JSONName() + ": it is here and in a file"
		}
		m.ProtoReflect().Set(f, protoreflect.ValueOfString(value))
	}
	return ""
}

// secretFile reads a file that is named relative to the one that names it. One newline at the end is not part of a secret.
func secretFile(dir, name string) (value, why string) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	data, err := readFile("filename", name)
	if err != nil {
		return "", "the file can't be read"
	}
	data, _ = bytes.CutSuffix(data, []byte("\n"))
	data, _ = bytes.CutSuffix(data, []byte("\r"))
	switch {
	case len(data) == 0:
		return "", "the file is empty"
	case len(data) > tokenbroker.MaxSecretBytes:
		return "", "the file is too large: is it the right one?"
	}
	return string(data), ""
}
