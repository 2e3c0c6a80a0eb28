package policy

// GrantsAll reports whether a rule gives the identity the action on all credentials there are and will be: by the pattern "**". It is for
// what is about none of them in particular, as what the broker records of itself.
func (p *Policy) GrantsAll(identity string, action Action) bool {
	all := false
	p.each(identity, action, func(i int) bool {
		all = open(p.rules[i].credentials)
		return !all
	})
	return all
}
