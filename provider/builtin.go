package provider

import (
	"cmp"
	"embed"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
)

//go:embed profiles/*.yaml
var files embed.FS

// genericName is the profile that all others start from.
const genericName = "generic"

// library is what the embedded profiles come to.
type library struct {
	bases  map[string]Profile // name → merged profile, its parts open
	usable map[string]Profile // name → checked profile, of those that need nothing more
}

// builtins reads the embedded profiles, the first time that it is called. Nobody changes what it returns.
//
//nolint:gochecknoglobals // the files do not change, so neither does what is read from them
var builtins = sync.OnceValues(readLibrary)

func readLibrary() (library, error) {
	raw, err := readFiles()
	if err != nil {
		return library{}, fmt.Errorf("read built-in profiles: %w", err)
	}
	lib := library{bases: map[string]Profile{}, usable: map[string]Profile{}}
	var problems []error
	for name := range raw {
		base, err := chain(raw, name)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		lib.bases[name] = base
		if name == genericName || len(openParts(base)) > 0 {
			continue
		}
		p, err := finish(name, base)
		problems = append(problems, err)
		lib.usable[name] = p
	}
	return lib, errors.Join(problems...)
}

func readFiles() (map[string]Profile, error) {
	entries, err := files.ReadDir("profiles")
	if err != nil {
		return nil, err
	}
	raw := map[string]Profile{}
	for _, f := range entries {
		data, err := files.ReadFile(path.Join("profiles", f.Name()))
		if err != nil {
			return nil, err
		}
		var p Profile
		if err := decode(data, &p); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
		raw[strings.TrimSuffix(f.Name(), ".yaml")] = p
	}
	return raw, nil
}

// chain merges a built-in profile over the one that it names, and so on down to the generic one.
func chain(raw map[string]Profile, name string) (Profile, error) {
	merged, seen := raw[name], []string{name}
	for at := name; at != genericName; {
		at = cmp.Or(raw[at].Base, genericName)
		below, ok := raw[at]
		if !ok || slices.Contains(seen, at) {
			return Profile{}, fmt.Errorf("built-in profile %q: profile: %q can't be below %s", name, at, strings.Join(seen, ", "))
		}
		seen = append(seen, at)
		merged = merged.over(below)
	}
	merged.Base = cmp.Or(raw[name].Base, genericName)
	return merged, nil
}

// Builtins returns the names of the profiles that come with the broker, sorted, without the generic one. Any of them, and "generic", can be
// named as the start of a configured one.
func Builtins() []string {
	lib, err := builtins()
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(slices.Sorted(maps.Keys(lib.bases)), func(name string) bool { return name == genericName })
}

// Builtin returns a profile that comes with the broker, as it is before its parts have values: for people to read. The caller must not change
// what it refers to.
func Builtin(name string) (Profile, bool) {
	lib, err := builtins()
	if err != nil {
		return Profile{}, false
	}
	p, ok := lib.bases[name]
	return p, ok
}
