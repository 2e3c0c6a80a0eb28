package audit

import (
	"crypto/ed25519"
	"io"
	"time"
)

// Fault is a kind of damage that Verify finds.
type Fault string

// The faults.
const (
	FaultEdited    Fault = "edited"    // a line is not as it was written
	FaultMissing   Fault = "missing"   // lines are not there
	FaultReordered Fault = "reordered" // lines are not where they were written
	FaultTruncated Fault = "truncated" // the end is cut off: a checkpoint speaks of more
	FaultRewritten Fault = "rewritten" // the chain holds, but a signed checkpoint says otherwise
	FaultUnsigned  Fault = "unsigned"  // a checkpoint whose signature is bad or missing, or no checkpoint at all
	FaultMixed     Fault = "mixed"     // lines of two trails, or a number twice
)

// Problem is one finding.
type Problem struct {
	Fault Fault
	File  string
	Line  int    // from 1; 0 = the file as a whole
	Seq   uint64 // of the first bad record; 0 = unknown
	Text  string // a sentence
}

// Source is something to read lines from.
type Source struct {
	Name string
	Open func() (io.ReadCloser, error)
}

// VerifyOptions say what to check against.
type VerifyOptions struct {
	Keys        []ed25519.PublicKey // of the checkpoints; none = the chain alone is checked
	Checkpoints []Source            // the second place, oldest first

	// From is the number of the first record that has to be there, where older files were moved away. 0 = the trail has to be there from its
	// beginning on if there is a second place; without one nothing is known of older files.
	From uint64

	// Unchained is how many lines of version 1 may stand in front. They have no chain, so that keys prove nothing about them: more are a fault
	// if there are keys.
	Unchained int

	// OtherTrails lets the second place hold checkpoints of other trails by the same keys. Otherwise their records are missing.
	OtherTrails bool
}

// Report is what Verify found.
type Report struct {
	Trail       string    // id
	Lines       int       // all that were read
	First, Last uint64    // numbers of the first and the last record
	From, To    time.Time // their times
	Head        Hash      // hash of the last record
	Unchained   int       // lines of version 1, which have no chain

	Torn      int    // lines that were left unfinished and told of
	CrashTail bool   // the last line is unfinished, as a crash leaves it
	Gaps      int    // records of callers who were refused since the trail could not be written
	Refused   uint64 // how many those were
	Deleted   int    // records of files that were deleted or cut off under the broker

	Keyed       bool   // signatures were checked
	Checkpoints int    // good ones in the trail
	Witnessed   int    // good ones from the second place that the trail agrees with
	Foreign     int    // those in the second place that are of another trail
	Older       int    // those in the second place that are older than the first record
	SignedTo    uint64 // the last number that a good checkpoint speaks for; 0 = none
	Open        uint64 // records behind it

	Problems []Problem // the first 100, in the order of the trail
	More     int       // how many there are besides
}

// Found reports whether there was a line that is a record, be it an edited one.
func (r *Report) Found() bool { return r.Trail != "" || r.Unchained > 0 }

// OK reports whether nothing is wrong.
func (r *Report) OK() bool { return len(r.Problems) == 0 }
