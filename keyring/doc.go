// Package keyring seals bytes under keys that are themselves kept sealed. It knows nothing of OAuth.
//
// Two levels of keys:
//
//	KEK (file, later a KMS)  ──wraps──▶  Ring: one Tink AEAD keyset (XAES-256-GCM)   seals records
//	                                           one Tink PRF keyset (HKDF-SHA-256)    makes keyed hashes
//
// A [KEK] is the one secret that is kept apart from the store. A [Ring] lives in the store in wrapped form, so that a new
// KEK only has to wrap two small keysets again and no record. XAES-256-GCM has 192-bit random nonces: millions of writes a
// year stay far from any limit. Every sealed message names its key by Tink's prefix, so that a new key can be added while
// messages of the old one still open.
//
// It promises: what [Ring.Open] gives back was sealed by this ring with the same associated data, byte for byte; a KEK
// that is not the one a ring was wrapped with is refused as [ErrWrongKey], naming both by their fingerprints.
//
// It refuses: key files that others can read, that are empty or of another shape; to overwrite a key file; to go on
// without a KEK.
package keyring
