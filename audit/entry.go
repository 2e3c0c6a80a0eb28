package audit

// Entry is a record as it was read back from the trail.
type Entry struct {
	Seq uint64 // number of its line
	Record
}
