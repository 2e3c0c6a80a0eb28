package server

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/tokenbroker/tokenbroker"
)

// maskPaths reads an update mask (AIP-134): "*" stands for all fields that can be changed, an absent mask for those that are set.
func maskPaths(mask *fieldmaskpb.FieldMask, spec protoreflect.Message, allowed ...string) ([]string, error) {
	paths := mask.GetPaths()
	switch {
	case len(paths) == 0:
		spec.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
			paths = append(paths, string(f.Name()))
			return true
		})
	case slices.Equal(paths, []string{"*"}):
		return allowed, nil
	}
	for _, p := range paths {
		if !slices.Contains(allowed, p) {
			return nil, tokenbroker.Invalid("updateMask", fmt.Errorf("%q can't be changed; these can: %s", p, strings.Join(allowed, ", ")))
		}
	}
	if len(paths) == 0 {
		return nil, tokenbroker.Invalid("updateMask", errors.New("nothing is set that could be changed"))
	}
	return paths, nil
}

// The kinds of pages: a token of one list is none of another.
const (
	credentialPages  = "c1:"
	oauthClientPages = "o1:"
)

// pageToken wraps the name to go on from. It is opaque to clients, and no capability: each page is judged by the policy anew.
func pageToken(kind, after string) string {
	if after == "" {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString([]byte(kind + after))
}

func pageAfter(kind, token string) (string, error) {
	if token == "" {
		return "", nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	after, ok := strings.CutPrefix(string(raw), kind)
	if err != nil || !ok || tokenbroker.ValidateName(after) != nil {
		return "", tokenbroker.Invalid("pageToken", errors.New("is none of this list; begin again without one"))
	}
	return after, nil
}
