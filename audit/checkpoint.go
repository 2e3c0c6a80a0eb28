package audit

import (
	"encoding/base64"
	"strconv"
	"time"
)

// Checkpoint is a signed statement that the trail stood at Head before the line that holds it. It speaks for all lines before it, as
// each line is chained to the one before.
type Checkpoint struct {
	Head      Hash   // head: hash of the line before; the same as prev, as long as nobody touched the line
	Store     uint64 // store: the store's own counter at that time; 0 = none was given
	Key       string // key: id of the key that signed, as Signer.KeyID
	Signature []byte // sig: Ed25519, in base64url without padding
}

// appendFields appends the fields of a checkpoint, each with a comma before it.
func (c *Checkpoint) appendFields(b []byte) []byte {
	b = appendText(b, "head", c.Head.String())
	b = appendUint(b, "store", c.Store)
	b = appendText(b, "key", c.Key)
	return appendText(b, "sig", base64.RawURLEncoding.EncodeToString(c.Signature))
}

// statement is what is signed: seven lines of text, each ended by a line feed. seq is the number of the checkpoint's own line.
func (c *Checkpoint) statement(trail string, seq uint64, at time.Time) []byte {
	b := []byte("tokenbroker audit checkpoint 1\n" + trail + "\n")
	b = append(strconv.AppendUint(b, seq, 10), '\n')
	b = append(b, c.Head.String()+"\n"...)
	b = append(at.UTC().AppendFormat(b, time.RFC3339Nano), '\n')
	b = append(strconv.AppendUint(b, c.Store, 10), '\n')
	return append(b, c.Key+"\n"...)
}
