package audit

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"fmt"
)

// place is where a line is.
type place struct {
	file string
	line int
	seq  uint64
}

// hole is a range of numbers that are not there so far: from to to, both included.
type hole struct {
	from, to uint64
	problem  int // its index among the problems; -1 = that list was full
}

// verifier checks one line after the other.
type verifier struct {
	keys   []ed25519.PublicKey
	points *points
	from   uint64 // number of the first record that has to be there; 0 = of the trail
	report Report

	file     string // that is read
	line     int    // number of the line in it
	lastFile bool

	head, before Hash   // of the last record, and of the one before it
	computed     Hash   // of the last record; another one than head if the line was edited
	other        string // another trail that was told of
	at           place  // of the last record
	oldest       place  // of the first line of version 1
	unchained    int    // lines of version 1 that may be there
	chained      bool   // there was a record of version 2
	last         []byte // text of the last record
	junk         *place // a line that is no record stands behind the last record
	half         string // what a record has to say of it, if it was left unfinished
	holes        []hole
	signedTo     uint64
}

// problem notes a finding and returns its index, -1 if there are too many.
func (v *verifier) problem(p Problem) int {
	if len(v.report.Problems) == maxProblems {
		v.report.More++
		return -1
	}
	v.report.Problems = append(v.report.Problems, p)
	return len(v.report.Problems) - 1
}

// fault notes a finding at a place.
func (v *verifier) fault(f Fault, at place, format string, args ...any) int {
	return v.problem(Problem{f, at.file, at.line, at.seq, fmt.Sprintf(format, args...)})
}

// take takes the next line.
func (v *verifier) take(text []byte, ended bool) error {
	v.line++
	v.report.Lines++
	here := place{file: v.file, line: v.line}
	l, stated, ok := parseLink(text)
	switch {
	case !ended && v.lastFile:
		v.report.CrashTail = true
		return nil
	case ok && ended:
		here.seq = l.seq
		return v.record(text, l, stated, here)
	}
	if trail, seq, ok := parseHead(text); ok && trail == "" && ended {
		here.seq = seq
		v.old(text, here)
		return nil
	}
	v.clearJunk()
	v.junk, v.half = &here, unfinished(text)
	return nil
}

// old takes a line of version 1.
func (v *verifier) old(text []byte, here place) {
	if v.report.Unchained++; v.report.Unchained == 1 {
		v.oldest = here
	}
	if v.chained {
		v.fault(FaultEdited, here, "a line without a chain stands behind lines that have one")
		return
	}
	v.clearJunk()
	v.seen(text, here)
}

// seen notes what the report says of a good line.
func (v *verifier) seen(text []byte, here place) {
	e, err := ParseEntry(text)
	if err != nil {
		v.fault(FaultEdited, here, "it is chained like a record, but is none: %v", err)
		return
	}
	r := &v.report
	if r.First == 0 {
		r.First, r.From = e.Seq, e.Time
	}
	r.Last, r.To, r.Head = e.Seq, e.Time, e.Hash
	if e.Kind == KindSystem {
		v.told(&e)
	}
	if e.Kind == KindCheckpoint {
		v.point(&e, here)
	}
}

// told counts what the log itself told of.
func (v *verifier) told(e *Entry) {
	switch e.Action {
	case ActionGap:
		v.report.Gaps++
		v.report.Refused += e.Count
	case ActionDeleted:
		v.report.Deleted++
	}
}

// record takes a line of version 2.
func (v *verifier) record(text []byte, l link, stated Hash, here place) error {
	computed := hashOf(text)
	if !v.chained {
		v.report.Trail = l.trail
		v.begin(l, here)
	}
	if computed != stated {
		if v.chained { // nothing in it is to be trusted, so it is taken for the line that belongs here
			l, here.seq = link{v.report.Trail, v.at.seq + 1, v.head}, v.at.seq+1
		}
		v.fault(FaultEdited, here, "the line does not have the hash that it states")
	}
	if l.trail != v.report.Trail {
		if v.other != l.trail {
			v.fault(FaultMixed, here, "it is of the trail %s, and those before of %s; verify the files of each trail for themselves", l.trail, v.report.Trail)
		}
		v.other = l.trail
		return nil
	}
	if v.chained && l.seq <= v.at.seq {
		v.backward(l, here)
		return nil
	}
	if v.chained {
		v.follows(text, l, here)
	}
	if err := v.points.upTo(l, stated, here, len(v.holes) > 0); err != nil {
		return err
	}
	v.chained, v.at = true, here
	v.before, v.head, v.computed = v.head, stated, computed
	v.last = append(v.last[:0], text...)
	if computed == stated {
		v.seen(text, here)
	}
	return nil
}

// begin takes the first line that has a chain. Older files may be gone, if that was said or nothing could tell; but behind lines of version 1
// a chain begins.
func (v *verifier) begin(l link, here place) {
	if v.junk != nil && v.report.Unchained == 0 {
		v.fault(FaultEdited, *v.junk, "the line is no record")
		v.junk = nil
	}
	v.clearJunk()
	here.seq = max(v.from, 1)
	switch {
	case v.report.Unchained > 0 && l.seq <= v.report.Last:
		v.fault(FaultMixed, v.oldest, "lines of version 1 up to number %d stand in front of a trail that begins with number %d: they are none of it",
			v.report.Last, l.seq)
	case v.report.Unchained > 0 && !l.prev.IsZero():
		here.seq = v.report.Last + 1
		v.fault(FaultMissing, here, "the beginning of the chain is missing: this line follows one that is not there")
	case v.report.Unchained == 0 && v.from > 0 && l.seq > v.from:
		v.fault(FaultMissing, here, "before this line, which is the first, numbers %d to %d are not there", v.from, l.seq-1)
	case v.from == 0 && !l.prev.IsZero() && v.points.given:
		v.fault(FaultMissing, here, "before this line, which is the first, numbers 1 to %d are not there; "+
			"if those files were moved away, verify from the first number that has to be there", l.seq-1)
	}
}

// backward takes a line whose number is not above the last one.
func (v *verifier) backward(l link, here place) {
	for i := range v.holes {
		h := &v.holes[i]
		if h.from <= l.seq && l.seq <= h.to {
			if h.problem >= 0 {
				p := &v.report.Problems[h.problem]
				p.Fault, p.Text = FaultReordered, fmt.Sprintf("this line stands too early: number %d comes later, at %s:%d", l.seq, here.file, here.line)
			}
			return
		}
	}
	if l.seq < v.points.first {
		v.fault(FaultReordered, here, "this line stands too late: number %d belongs in front of the first line", l.seq)
		return
	}
	v.fault(FaultMixed, here, "number %d comes a second time: a copy, or two brokers wrote to one trail", l.seq)
}

// follows checks a line against the one before it.
func (v *verifier) follows(text []byte, l link, here place) {
	junk := v.junk
	v.junk = nil
	told, torn := tornRecord(text)
	switch {
	case torn && junk != nil && l.prev == v.head && l.seq <= v.at.seq+2:
		if v.report.Torn++; told != v.half {
			junk.seq = v.at.seq + 1
			v.fault(FaultEdited, *junk, "the line is not the unfinished one that the record behind it tells of")
		}
		return
	case torn && junk == nil && l.seq == v.at.seq+1 && l.prev == v.before:
		if v.report.Torn++; told != unfinished(v.last) { // it lacked its line feed alone
			v.fault(FaultEdited, v.at, "the line is not the unfinished one that the record behind it tells of: it was put in its place")
		}
		return
	case junk != nil:
		junk.seq = v.at.seq + 1
		v.fault(FaultEdited, *junk, "the line is no record, and no record says that it was left unfinished")
		if l.seq == v.at.seq+2 {
			return
		}
	}
	switch {
	case l.seq > v.at.seq+1:
		v.jump(l, here)
	case l.prev != v.head && l.prev != v.computed:
		v.fault(FaultEdited, v.at, "the line has the hash that it states, but the one behind it was chained to another")
	}
}

// tornRecord reads what a record says of the unfinished line above it; ok is false if it tells of none.
func tornRecord(text []byte) (told string, ok bool) {
	if !bytes.Contains(text, []byte(`,"kind":"system","action":"`+ActionTorn+`"`)) {
		return "", false
	}
	e, err := ParseEntry(text)
	return e.Reason, err == nil
}

// jump takes a line that is not the next by its number.
func (v *verifier) jump(l link, here place) {
	what := fmt.Sprintf("numbers %d to %d are", v.at.seq+1, l.seq-1)
	if l.seq == v.at.seq+2 {
		what = fmt.Sprintf("number %d is", l.seq-1)
	}
	if v.at.file != here.file {
		what += fmt.Sprintf(" neither at the end of %s nor in a file between", v.at.file)
	} else {
		what += " not there"
	}
	h := hole{v.at.seq + 1, l.seq - 1, v.fault(FaultMissing, place{here.file, here.line, v.at.seq + 1}, "before this line %s", what)}
	const most = 1000 // more is no mere disorder
	if v.holes = append(v.holes, h); len(v.holes) > most {
		v.holes = v.holes[1:]
	}
}

// clearJunk notes a line that is no record, if one stands open. Between lines of version 1 nothing can be said of it.
func (v *verifier) clearJunk() {
	switch {
	case v.junk == nil:
	case v.chained || v.report.Unchained == 0:
		v.fault(FaultEdited, *v.junk, "the line is no record")
	default:
		v.report.Torn++
	}
	v.junk = nil
}

// point takes a checkpoint of the trail itself.
func (v *verifier) point(e *Entry, here place) {
	switch {
	case len(v.keys) == 0:
		return
	case !e.Signed(v.keys):
		v.fault(FaultUnsigned, here, "the signature of this checkpoint, by key %q, is not of a key that was given", cmp.Or(e.Checkpoint.Key, "none"))
	case e.Checkpoint.Head != e.Prev:
		v.fault(FaultRewritten, here, "the chain holds, but this signed checkpoint says that the line before had another hash; behind number %d something was changed",
			v.signedTo)
	default:
		v.report.Checkpoints++
		v.signedTo = e.Seq
	}
}

// end closes the report.
func (v *verifier) end() error {
	v.clearJunk()
	if err := v.points.rest(v); err != nil {
		return err
	}
	r := &v.report
	r.Witnessed, r.Foreign, r.Older = v.points.good, v.points.foreign, v.points.older
	r.SignedTo = max(v.signedTo, v.points.goodTo)
	r.Open = r.Last - min(max(r.SignedTo, v.points.first-min(v.points.first, 1)), r.Last)
	if !r.Found() && r.OK() {
		v.fault(FaultMissing, place{file: v.file}, "no record is there")
	}
	if r.Keyed && r.Unchained > v.unchained {
		v.fault(FaultUnsigned, v.oldest, "%d lines have no chain, as version 1 wrote them: no signature speaks for them, and anybody may have put them there", r.Unchained)
	}
	if r.Keyed && r.Checkpoints+r.Witnessed == 0 && r.OK() {
		v.fault(FaultUnsigned, place{file: v.file}, "there is no checkpoint: nothing proves that this is what was written")
	}
	return nil
}
