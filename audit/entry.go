package audit

// Entry is a record as it was read back from the trail.
type Entry struct {
	Seq uint64 // number of its line
	Record
	Trail      string      // id of the trail; "" in lines of version 1, which have no chain
	Prev, Hash Hash        // of the line before, and of this one
	Checkpoint *Checkpoint // what a record of kind "checkpoint" says; nil for all others
}

// AppendLine appends the entry as a line of version 2, without the line feed, and sets its Hash. Trail, Seq and Prev say what it is
// chained to.
func (e *Entry) AppendLine(b []byte) []byte {
	fields := e.appendFields(nil, e.Time)
	if e.Checkpoint != nil {
		fields = e.Checkpoint.appendFields(fields)
	}
	b, e.Hash = frame(b, link{e.Trail, e.Seq, e.Prev}, fields)
	return b
}
