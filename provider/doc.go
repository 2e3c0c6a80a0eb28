// Package provider holds what is known of each authorization server, as data, and the rules that read it.
//
// A [Profile] says where a server's endpoints are and how it departs from RFC 6749: how it wants to be asked, how it
// answers, what its errors mean, how its refresh tokens live, and what an operator has to know to register an app there.
// Profiles are YAML: built-in ones are embedded in the binary and may start from one another; an operator's are read by the
// program that starts the broker and handed to [New], which merges each over the built-in profile it names. A built-in
// profile that needs nothing more is there by its own name. A server of which nothing is known gets the strict reading:
// refresh tokens rotate, the previous one is dead at once, one invalid_grant is enough, narrower scopes are not to be had.
//
// URLs of a profile may have parts, such as a tenant, that an entry gives values for. A value is checked as a whole before it
// goes anywhere, and the URL with it as if it had been written out.
//
// New refuses a profile that could send a secret or a person astray: an endpoint that is not https (but for plain http to a
// loopback literal with insecure_loopback), one with a user, a fragment or a secret in its URL, one on a private, loopback or
// link-local address that was not allowed, an address in a spelling that resolvers read differently, a redirect that leaves
// the machine, any response type but "code", a field that the protocol sets. All problems are reported at once.
// [Profile.CheckAddr] is the same judgement for the moment a connection is made. [Lint] judges a file, and gives advice on top.
//
// What an error means at one server may have a cause, a word of package explain, which holds the sentence for people.
//
// The package does no I/O: it reads no file, resolves no name. Nothing from an API call ever gets here.
package provider
