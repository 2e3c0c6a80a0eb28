package provider

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
)

// over returns base with all that p says put over it. Maps are united, key by key; error rules and the meanings of scopes go before base's;
// any other list takes base's place. Nothing of the outcome is shared with p or base but what nobody changes.
func (p Profile) over(base Profile) Profile {
	merged := base
	to, from := reflect.ValueOf(&merged).Elem(), reflect.ValueOf(p)
	for i := range from.NumField() {
		switch into := to.Field(i); {
		case from.Field(i).IsZero():
		case into.Kind() == reflect.Map:
			into.Set(united(into, from.Field(i)))
		default:
			into.Set(from.Field(i))
		}
	}
	merged.Errors = slices.Concat(p.Errors, base.Errors)
	merged.Scopes = slices.Clone(p.Scopes)
	for _, s := range base.Scopes {
		if !slices.ContainsFunc(p.Scopes, func(own ScopeInfo) bool { return own.Name == s.Name }) {
			merged.Scopes = append(merged.Scopes, s)
		}
	}
	merged.AuthMethods, merged.BearerTypes = slices.Clone(merged.AuthMethods), slices.Clone(merged.BearerTypes)
	merged.Metadata, merged.Grants = slices.Clone(merged.Metadata), slices.Clone(merged.Grants)
	merged.TokenParams = clone(merged.TokenParams)
	merged.AuthorizationParams, merged.AssertionClaims = clone(merged.AuthorizationParams), clone(merged.AssertionClaims)
	return merged
}

// united returns a new map with what is in both, the second one's values first.
func united(a, b reflect.Value) reflect.Value {
	sum := reflect.MakeMap(b.Type())
	for _, m := range []reflect.Value{a, b} {
		for it := m.MapRange(); it.Next(); {
			sum.SetMapIndex(it.Key(), it.Value())
		}
	}
	return sum
}

// clone returns a copy that can be written to.
func clone(m map[string]string) map[string]string {
	sum := maps.Clone(m)
	if sum == nil {
		return map[string]string{}
	}
	return sum
}

// complete sets what follows from other fields.
func (p Profile) complete(name string) Profile {
	p.Title = cmp.Or(p.Title, name)
	p.RefreshEndpoint = cmp.Or(p.RefreshEndpoint, p.TokenEndpoint)
	p.TestEndpoint = cmp.Or(p.TestEndpoint, p.UserinfoEndpoint)
	return p
}
