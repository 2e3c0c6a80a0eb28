// Package audit keeps the trail of who was given what: JSON lines, appended to an [io.Writer], each written before the answer
// that it is about leaves.
//
// # What it promises
//
//   - [Log.Write] returns nil only after the sink took the record. Whoever gets an error must not hand out the secret.
//   - It returns within the deadline (2 s by default) when the sink hangs or refuses. The time of callers whose records share a write
//     counts from the first of them on. While a sink moves, only slowly, it waits for up to five deadlines; while the process has more to do
//     than its processors bear, for up to fifteen.
//     While a write is stuck for longer than one, further callers are refused at once, and so they are when more is waiting than may
//     wait: memory is bounded.
//   - Every record is written at most once, as a whole line, in the order of its seq. Many waiting records share one write.
//   - Nothing is lost silently. Each caller of a group that could not be written gets the error, and as soon as the sink takes
//     something again, a record of kind "system" and action "audit.gap" says how many callers were refused.
//   - It recovers by itself: while records are missing, the writer tries again each second. While nothing is written it looks each 5 s
//     whether the sink could be written to.
//   - Each line is chained to the one before, over rotations, restarts and unfinished lines, and checkpoints are signed; [Verify] says what
//     was done to a trail, and, given the second place of the checkpoints, whether its beginning, its end or all of it is gone. Whoever can
//     write the file and the second place, or has the signing key, can write another one.
//
// A record whose caller was already told "unavailable" may still be written: when the write had begun, or when it waits behind
// one that did. The trail may so say more than happened, and never less.
//
// # What it refuses
//
// There is no field for a secret, a token or a provider's reply, and a tokenbroker.Secret printed into a text field reads
// "[redacted]"; a token is named by its MAC under an audit key, see [Keys]. Records can't be changed through this package. [Trail] reads
// them back, and never holds up the writer.
//
// # Format
//
// A line is a JSON object in UTF-8. "v" is the version of the schema, 2; "trail" is a random id and "seq" counts the lines, and a restart on
// the same [File] goes on with both. A field that is empty or 0 is left out. Times are RFC 3339 in UTC. The names are those in the comments
// of [Record] and [Checkpoint]. The last two fields are "prev", the hash of the line before, and "hash": the SHA-256 of the line's bytes
// before `,"hash"`. Lines of version 1 had neither a trail nor a chain; they are read, too. docs/audit.md tells it to those who verify.
//
// A crash may leave an unfinished last line. [OpenFile] ends it, and the next record has the kind "system" and the action
// "audit.torn": the line above is no record, and whoever waited for it was never answered. It holds the length and the hash of that line, so
// that nothing can be put in its place.
package audit
