package usage

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Keeper keeps a book's documents.
type Keeper interface {
	// Usage visits each document that was put last under its name. What can't be read is left out, and said by the error in the end.
	Usage(ctx context.Context, visit func(name string, document []byte)) error
	// PutUsage keeps documents in place of those of the same names; nil deletes. An error leaves some of them as they were.
	PutUsage(ctx context.Context, documents map[string][]byte) error
}

// rulesName is the name of the document that speaks of rules; no credential has it.
const rulesName = "!rules"

// maxDocument bounds a document: of very long identities, fewer are kept over a restart.
const maxDocument = 512 << 10

// ledgerDocument is a credential's document.
type ledgerDocument struct {
	Version int       `json:"v"`
	Users   []userDoc `json:"users"` // the latest first
}

// userDoc is one identity's use.
type userDoc struct {
	Identity string `json:"identity"`
	Rule     string `json:"rule"`
	First    int64  `json:"first"` // seconds since 1970
	Last     int64  `json:"last"`  // minutes since 1970
}

// rulesDocument is the document of rules.
type rulesDocument struct {
	Version int       `json:"v"`
	Since   time.Time `json:"since"`
	Rules   []ruleDoc `json:"rules"` // the latest first
}

// ruleDoc is one rule's use.
type ruleDoc struct {
	Rule string `json:"rule"`
	Last int64  `json:"last"` // minutes since 1970
}

const documentVersion = 1

// Load takes up what a keeper has, into a book that is new. What does not read is left out and begins anew; the error says so.
func (b *Book) Load(ctx context.Context, k Keeper) error {
	var problems []error
	err := k.Usage(ctx, func(name string, document []byte) {
		if err := b.take(name, document); err != nil {
			problems = append(problems, fmt.Errorf("usage of %q: %w", name, err))
		}
	})
	return errors.Join(append(problems, err)...)
}

func (b *Book) take(name string, document []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if name == rulesName {
		var d rulesDocument
		if err := read(document, &d); err != nil {
			return err
		}
		b.since, b.dirty = d.Since.UTC(), false
		for _, r := range d.Rules[:min(len(d.Rules), MaxRules)] {
			b.ruleLocked(r.Rule).last.Store(r.Last)
		}
		return nil
	}
	var d ledgerDocument
	if err := read(document, &d); err != nil {
		return err
	}
	for _, u := range d.Users[:min(len(d.Users), MaxIdentities)] {
		e := b.entryLocked(name, u.Identity)
		e.rule, e.first = u.Rule, u.First
		e.last.Store(u.Last)
	}
	return nil
}

// read is strict: what an unknown field means is not known.
func read(document []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(document))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("does not decode: %w", err)
	}
	return nil
}

// Retain forgets the credentials that are not there any more, e.g. after a crash just behind a delete.
func (b *Book) Retain(there func(credential string) bool) {
	b.mu.RLock()
	names := slices.Collect(maps.Keys(b.of))
	b.mu.RUnlock()
	for _, name := range names {
		if !there(name) {
			b.Forget(name)
		}
	}
}

// Save has a keeper take what changed since the last Save. After an error it is all tried again by the next one.
func (b *Book) Save(ctx context.Context, k Keeper) error {
	b.saving.Lock()
	defer b.saving.Unlock()
	documents := b.changed()
	if len(documents) == 0 {
		return nil
	}
	if err := k.PutUsage(ctx, documents); err != nil {
		b.again(documents)
		return fmt.Errorf("keep usage: %w", err)
	}
	return nil
}

// changed makes the documents of what changed, and takes it for saved.
func (b *Book) changed() map[string][]byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	documents := map[string][]byte{}
	for name := range b.doomed {
		documents[name] = nil
	}
	clear(b.doomed)
	for name, l := range b.of {
		if l.dirty {
			documents[name] = l.document()
			l.dirty = false
		}
	}
	if b.dirty {
		documents[rulesName] = b.rulesDocument()
		b.dirty = false
	}
	return documents
}

// again has the next save take documents that this one could not.
func (b *Book) again(documents map[string][]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, document := range documents {
		switch l := b.of[name]; {
		case name == rulesName:
			b.dirty = true
		case l != nil:
			l.dirty = true
		case document == nil:
			b.doomed[name] = true
		}
	}
}

func (l *ledger) document() []byte {
	d := ledgerDocument{Version: documentVersion}
	for _, e := range l.used() {
		d.Users = append(d.Users, userDoc{Identity: e.identity, Rule: e.rule, First: e.first, Last: e.last.Load()})
	}
	return fit(&d, func() { d.Users = d.Users[:len(d.Users)/2] })
}

func (b *Book) rulesDocument() []byte {
	d := rulesDocument{Version: documentVersion, Since: b.since}
	for name, r := range b.rules {
		if last := r.last.Load(); last > 0 {
			d.Rules = append(d.Rules, ruleDoc{name, last})
		}
	}
	slices.SortFunc(d.Rules, func(x, y ruleDoc) int { return cmp.Or(cmp.Compare(y.Last, x.Last), cmp.Compare(x.Rule, y.Rule)) })
	return fit(&d, func() { d.Rules = d.Rules[:len(d.Rules)/2] })
}

// fit encodes a document, with half of it as long as it is too large.
func fit(d any, halve func()) []byte {
	for {
		text, err := json.Marshal(d)
		if err == nil && len(text) <= maxDocument {
			return text
		}
		if err != nil { // there is nothing in it that does not encode
			return []byte("{}")
		}
		halve()
	}
}
