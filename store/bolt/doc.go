// Package bolt is the embedded store.Engine: one bbolt file, one process.
//
// The file holds one bolt bucket per store bucket, and a bucket "!revision" whose sequence is the revision counter. A value is
//
//	revision  8 bytes, big endian: of the transaction that wrote it
//	value     the rest
//
// Beside the counter lies "transaction", 8 bytes, big endian: the bolt transaction that it is of.
//
// It promises that a transaction that returned is on disk, that transactions of concurrent callers share the sync that
// puts them there, and that opening an existing file writes nothing to it: who only looks leaves it byte-identical. (A
// file that others than its owner can read is set to mode 0600.) A new file appears under its name only once it is whole.
//
// It refuses a file that another process holds, after Options.Timeout; a file that is empty, cut off or not bbolt's; and
// NFS and other file systems without working locks are not for it.
//
// Concurrent transactions are grouped without a timer: whoever finds the writer's seat free takes it and commits all that
// queued up meanwhile in one bolt transaction. A lone writer waits for nobody, and sixty-four share one sync. bbolt's own
// Batch would make a lone writer wait for 10 ms, and runs everything again when one function of a batch fails; here a
// failed compare is only an answer.
//
// bbolt panics, or faults, on some damaged files. Every look into the file recovers that into an error. Where a disk lost a page
// that it had said to be synced, Open refuses the file if the newest state can't be reached. One thing can't be recovered from: a
// lost page may leave bbolt's tree with a circle in it, and then bbolt takes stack or memory until the process ends.
package bolt
