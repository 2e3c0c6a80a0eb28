// Package policy decides who may do what with which credentials, scopes, subjects and audiences. A decision is a pure
// function of a [Request] and a [Policy]; only [File] touches the world.
//
// A policy is a YAML file of rules:
//
//	version: 1
//	rules:
//	  - name: reports-read
//	    identities: ["spiffe://example.org/job/reports", "spiffe://example.org/ns/*/job"]
//	    actions: [token.get, token.subscribe]
//	    credentials: ["google/reports-*"]
//	    scopes: ["https://www.googleapis.com/auth/drive.readonly"]
//	    subjects: ["*@example.org"]
//	    audiences: ["https://api.example.org/**"]
//
// # What it promises
//
//   - Default deny. An empty identity, an unknown action, a nil [Policy] and the zero Policy are denied.
//   - One rule has to allow the whole request. Rights of several rules do not add up: a rule says "these scopes on these
//     credentials", and a union would hand out combinations that nobody wrote down and no reviewer saw.
//   - A pattern is anchored at both ends. "*" stands for any run of characters without "/", also an empty one, "**" for any
//     run at all; everything else stands for itself. Matching takes time in proportion to the text.
//   - A rule without scopes covers a token with the credential's own ([Request].Own), and none else; a rule with scopes has to cover all that
//     the token would have, also the credential's own. Where nobody asks for scopes and the credential has none, the provider decides; a
//     rule without scopes leaves that to the credential, and else only the scope pattern "**" covers it.
//   - A rule without subjects lets callers have the credential's own only; with subjects they may also choose one that matches. Audiences
//     are the same.
//   - A rule in audit mode ([ModeAudit]) is weaker than every enforced rule, covers the credential's own only, and ends.
//   - Names and identities with a segment "." or ".." are denied, also by a pattern that such a segment fits.
//   - [Policy.Decide] allocates nothing.
//
// # What else it tells
//
// [Policy.Explain] says what each rule makes of a request, [Policy.Lint] what is doubtful, [Diff] how two policies differ,
// [Policy.Grantees] who may use a credential, and [Policy.Test] which expected decisions a policy does not make.
//
// # What it refuses
//
// [Parse] is strict, and reports all problems at once with line and column: unknown and duplicate keys, an empty file, a file
// without rules, two rules of the same name or the same content, a list that is there but empty, an unknown action, a pattern
// that can match nothing, an identity pattern that leaves the trust domain open. YAML anchors, aliases and tags are refused, so
// that a rule reads as it is.
//
// A [File] that can't be read or parsed keeps the last good policy. It never falls back to an empty or open one.
package policy
