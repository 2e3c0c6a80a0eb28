// Package usage counts who uses what: which identity was given tokens of which credential, when first and when last, and by which rule of
// the policy; and when each rule was last of use.
//
// # What it promises
//
//   - To note a use costs two atomic reads, unless it is the first of its minute: then a lock is taken for a moment. Nothing is written
//     while a caller waits.
//   - Memory is bounded: of a credential the 1,000 identities that used it last, and 10,000 rules. The oldest go first.
//   - Times of last use are to the minute. [Book.Save] writes what changed since the last one; a crash loses what came after it, so save
//     about once a minute.
//
// # What it refuses
//
// It is no audit trail: it forgets, and nobody is kept from anything by it. It holds no token and no secret, and knows no policy: a rule is a
// name.
package usage
