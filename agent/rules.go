package agent

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/tokenbroker/tokenbroker/policy"
)

// Rule gives local users credentials. It holds for a peer that has one of the uids or is of one of the groups.
type Rule struct {
	Name        string           // as the trail names it
	UIDs        []uint32         // users
	GIDs        []uint32         // groups; not for TCP connections, of which no group is known
	Credentials []policy.Pattern // what they may have
}

// ownRule is the name of the rule that holds where there is no other.
const ownRule = "own-uid"

// Own is what an agent without rules lives by: its own uid may have every credential that the broker gives it.
func Own() []Rule {
	all, err := policy.ParsePattern("**")
	if err != nil {
		panic(err) // "**" is a pattern
	}
	return []Rule{{Name: ownRule, UIDs: []uint32{ownUID()}, Credentials: []policy.Pattern{all}}}
}

func ownUID() uint32 { return uint32(os.Geteuid()) }

// ruleset is the rules that are in force together.
type ruleset struct {
	rules    []Rule
	replaced chan struct{} // closed when others are in force
}

func newRuleset(rules []Rule) (*ruleset, error) {
	if rules == nil {
		rules = Own()
	}
	var errs []error
	for i, r := range rules {
		switch {
		case r.Name == "":
			errs = append(errs, fmt.Errorf("rule %d has no name", i+1))
		case len(r.UIDs)+len(r.GIDs) == 0:
			errs = append(errs, fmt.Errorf("rule %q names no user and no group", r.Name))
		case len(r.Credentials) == 0:
			errs = append(errs, fmt.Errorf("rule %q names no credential", r.Name))
		}
	}
	return &ruleset{rules: rules, replaced: make(chan struct{})}, errors.Join(errs...)
}

// decision is what the rules say.
type decision struct {
	allowed  bool
	rule     string
	identity string // of the peer, with the group if that decided
}

// decide looks for a rule that gives a peer a credential.
func (rs *ruleset) decide(p Peer, credential string) decision {
	d := decision{identity: p.identity()}
	for _, r := range rs.rules {
		gid, byGroup, ok := r.holds(p)
		if !ok || !slices.ContainsFunc(r.Credentials, func(c policy.Pattern) bool { return c.Match(credential) }) {
			continue
		}
		if d.allowed, d.rule = true, r.Name; byGroup {
			d.identity += fmt.Sprintf(",gid=%d", gid)
		}
		return d
	}
	return d
}

// knows reports whether any rule is for a peer.
func (rs *ruleset) knows(p Peer) bool {
	return slices.ContainsFunc(rs.rules, func(r Rule) bool { _, _, ok := r.holds(p); return ok })
}

// shared reports whether the rules let others in than the agent's own uid.
func (rs *ruleset) shared() bool {
	return slices.ContainsFunc(rs.rules, func(r Rule) bool {
		return len(r.GIDs) > 0 || slices.ContainsFunc(r.UIDs, func(u uint32) bool { return u != ownUID() })
	})
}

func (r *Rule) holds(p Peer) (gid uint32, byGroup, ok bool) {
	if slices.Contains(r.UIDs, p.UID) {
		return 0, false, true
	}
	gid, ok = p.in(r.GIDs)
	return gid, ok, ok
}
