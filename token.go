package tokenbroker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Generation numbers access tokens. It is unique in a store and only rises: across restarts, deletes and re-creations.
// A restore from a backup raises the upper 16 bits (the epoch), so that it also rises across restores.
type Generation uint64

// EpochShift is the number of bits of a generation below its epoch.
const EpochShift = 48

// Order is the order of what a subscriber sees of one variant: by generation, then by revision. A revision rises when the
// state changes without a new token.
type Order struct {
	Generation Generation
	Revision   uint64
}

// Compare returns -1, 0 or +1 as o comes before, equals or comes after p.
func (o Order) Compare(p Order) int {
	return cmp.Or(cmp.Compare(o.Generation, p.Generation), cmp.Compare(o.Revision, p.Revision))
}

// Variant is one (scopes, subject, audience) of a credential. The zero value means "as the credential is configured".
type Variant struct {
	Scopes   []string // sorted, without duplicates; see NewVariant
	Subject  string   // whom the token acts for, where the grant can say so
	Audience string   // resource server or audience the token is for
}

// NewVariant returns a variant with its scopes sorted and duplicates dropped.
func NewVariant(scopes []string, subject, audience string) Variant {
	s := slices.Clone(scopes)
	slices.Sort(s)
	return Variant{Scopes: slices.Compact(s), Subject: subject, Audience: audience}
}

// Key is a canonical, comparable form of the variant. Each part is length-prefixed, so that no two variants share a key.
func (v Variant) Key() string {
	var b strings.Builder
	for _, part := range append([]string{v.Subject, v.Audience}, v.Scopes...) {
		fmt.Fprintf(&b, "%d:%s", len(part), part)
	}
	return b.String()
}

// Token is an access token (RFC 6749 §1.4) with what the broker knows of it.
type Token struct {
	AccessToken     Secret
	Type            string            // token_type as a caller has to write it, "Bearer" by default
	Scopes          []string          // scopes granted; those asked for if the provider did not say
	Expiry          time.Time         // wall time after which the provider refuses it; never zero
	ExpiryEstimated bool              // the provider named no life, Expiry comes from the provider's profile
	Obtained        time.Time         // when the request that brought it was sent; life counts from here
	Generation      Generation        // 0 until it is committed
	Metadata        map[string]string // what a job needs besides the token, e.g. "instance_url"
}

// Life is how long the token was to live when it was obtained.
func (t Token) Life() time.Duration { return t.Expiry.Sub(t.Obtained) }

// HeaderField names the metadata of a token that goes into a header of its own, in place of Authorization.
const HeaderField = "header"

// Header is the HTTP header that carries the token: "Authorization: Bearer …" (RFC 6750 §2.1), or an API key's own.
func (t Token) Header() (name, value string) {
	if own := t.Metadata[HeaderField]; own != "" {
		return own, t.AccessToken.Reveal()
	}
	return "Authorization", cmp.Or(t.Type, "Bearer") + " " + t.AccessToken.Reveal()
}
