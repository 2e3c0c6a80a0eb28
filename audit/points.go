package audit

import (
	"bufio"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
)

// points reads the checkpoints of the second place beside the trail.
type points struct {
	keys    []ed25519.PublicKey
	given   bool // there is a second place
	others  bool // there may be checkpoints of other trails
	sources []Source
	tell    func(Problem) int

	lines *scanner // of the source that is read; nil = none
	name  string
	line  int
	cur   *Entry          // the next one; nil = read it
	hash  Hash            // that cur really has; zero if that is not what it states
	open  []io.ReadCloser // all sources

	first                uint64 // of the trail
	other                string // another trail that was told of
	good, foreign, older int
	goodTo               uint64
}

// openPoints opens all sources, so that none is read further than it reaches now.
func openPoints(opts VerifyOptions) (*points, error) {
	p := &points{keys: opts.Keys, given: len(opts.Checkpoints) > 0, others: opts.OtherTrails, sources: opts.Checkpoints}
	for _, s := range opts.Checkpoints {
		r, err := s.Open()
		if err != nil {
			p.close()
			return nil, fmt.Errorf("read the checkpoints: %w", err)
		}
		p.open = append(p.open, r)
	}
	return p, nil
}

func (p *points) close() {
	for _, r := range p.open {
		_ = r.Close()
	}
}

// next returns the next checkpoint of a trail; nil behind the last one. Bad ones are told of.
func (p *points) next(trail string) (*Entry, error) {
	for p.cur == nil {
		text, ok, err := p.nextLine()
		if err != nil || !ok {
			return nil, err
		}
		e, err := ParseEntry(text)
		at := Problem{FaultUnsigned, p.name, p.line, e.Seq, ""}
		switch {
		case err != nil || e.Checkpoint == nil:
			at.Text = "the line is no checkpoint"
			p.tell(at)
		case e.Trail != trail:
			p.stranger(&e, trail)
		case len(p.keys) > 0 && !e.Signed(p.keys):
			at.Text = "the signature of this checkpoint is not of a key that was given"
			p.tell(at)
		default:
			if p.cur, p.hash = &e, hashOf(text); p.hash != e.Hash {
				p.hash = Hash{} // its signature is good, which is what counts
			}
		}
	}
	return p.cur, nil
}

// stranger takes a checkpoint of another trail. If it is by one of the keys, that trail was written here, and is gone.
func (p *points) stranger(e *Entry, trail string) {
	p.foreign++
	if p.others || p.other == e.Trail || len(p.keys) == 0 || !e.Signed(p.keys) {
		return
	}
	p.other = e.Trail
	at := Problem{FaultMissing, p.name, p.line, e.Seq,
		fmt.Sprintf("this signed checkpoint is of the trail %s, of which no record is there: the files are of %s", e.Trail, trail)}
	if trail == "" {
		at.Fault, at.Text = FaultTruncated, "no record is there, but this signed checkpoint says that there were some"
	}
	p.tell(at)
}

// nextLine returns a whole line of the sources; ok is false behind the last. An unfinished last line is left out: it is being written.
func (p *points) nextLine() (text []byte, ok bool, err error) {
	for {
		if p.lines == nil {
			if len(p.sources) == 0 {
				return nil, false, nil
			}
			i := len(p.open) - len(p.sources)
			p.lines, p.name, p.line = &scanner{r: bufio.NewReaderSize(p.open[i], 64<<10)}, p.sources[0].Name, 0
			p.sources = p.sources[1:]
		}
		text, ended, err := p.lines.next()
		if errors.Is(err, io.EOF) || err == nil && !ended {
			p.lines = nil
			continue
		}
		if err != nil {
			return nil, false, fmt.Errorf("read %s: %w", p.name, err)
		}
		p.line++
		return text, true, nil
	}
}

// upTo compares the checkpoints up to a line of the trail with it. holes says that lines are known to be missing.
func (p *points) upTo(l link, stated Hash, here place, holes bool) error {
	if p.first == 0 {
		p.first = l.seq
	}
	for {
		e, err := p.next(l.trail)
		if err != nil || e == nil || e.Seq > l.seq {
			return err
		}
		p.cur = nil
		switch {
		case e.Seq < p.first:
			p.older++ // of files that are not given
		case e.Seq < l.seq && holes:
		case e.Seq < l.seq:
			p.tell(Problem{FaultRewritten, here.file, here.line, e.Seq,
				fmt.Sprintf("the signed checkpoint with number %d (%s:%d) is not in the trail", e.Seq, p.name, p.line)})
		case e.Checkpoint.Head != l.prev || !p.hash.IsZero() && p.hash != stated:
			p.tell(Problem{FaultRewritten, here.file, here.line, l.seq,
				fmt.Sprintf("the signed checkpoint with this number (%s:%d) speaks of another trail: something behind number %d was changed", p.name, p.line, p.goodTo)})
		default:
			p.good, p.goodTo = p.good+1, e.Seq
		}
	}
}

// rest tells of the checkpoints that speak of more than there is.
func (p *points) rest(v *verifier) error {
	for first := true; ; first = false {
		e, err := p.next(v.report.Trail)
		if err != nil || e == nil {
			return err
		}
		p.cur = nil
		if !first {
			continue // one says it all, and bad signatures are told of nonetheless
		}
		v.fault(FaultTruncated, place{v.at.file, v.at.line, v.at.seq + 1},
			"the trail ends with number %d, but the signed checkpoint with number %d (%s:%d) says that there was more", v.at.seq, e.Seq, p.name, p.line)
	}
}
