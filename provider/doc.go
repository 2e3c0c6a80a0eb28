// Package provider holds what is known of each authorization server, as data, and the rules that read it.
//
// A [Profile] says where a server's token endpoint is and how it departs from RFC 6749: how it wants to be asked, how it
// answers, what its errors mean, how its refresh tokens live. Profiles are YAML: built-in ones are embedded in the
// binary, an operator's are read by the program that starts the broker and handed to [New], which merges each over the
// built-in profile it names. A server of which nothing is known gets the strict reading: refresh tokens rotate, the
// previous one is dead at once, one invalid_grant is enough, narrower scopes are not to be had.
//
// New refuses a profile that could send a secret astray: an endpoint that is not https (but for plain http to a loopback
// literal with insecure_loopback), one with a user, a fragment or a secret in its URL, one on a private, loopback or
// link-local address that was not allowed, an address in a spelling that resolvers read differently. All problems are
// reported at once. [Profile.CheckAddr] is the same judgement for the moment a connection is made.
//
// The package does no I/O: it reads no file, resolves no name. Nothing from an API call ever gets here.
package provider
