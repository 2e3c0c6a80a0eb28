package mtls

import (
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Distinguished names are compared in a text of our own, that of RFC 4514 with all choices taken: names of attribute types as below, else
// dotted; several attributes of one RDN sorted; escapes where escape puts them. The kind of string that a CA chose for a value
// does not count.

// attributeTypes are the names that a line may give to attribute types: those of openssl, which RFC 4514 shares.
var attributeTypes = []struct{ name, oid string }{
	{"CN", "2.5.4.3"},
	{"SN", "2.5.4.4"},
	{"serialNumber", "2.5.4.5"},
	{"C", "2.5.4.6"},
	{"L", "2.5.4.7"},
	{"ST", "2.5.4.8"},
	{"street", "2.5.4.9"},
	{"O", "2.5.4.10"},
	{"OU", "2.5.4.11"},
	{"title", "2.5.4.12"},
	{"description", "2.5.4.13"},
	{"businessCategory", "2.5.4.15"},
	{"postalCode", "2.5.4.17"},
	{"name", "2.5.4.41"},
	{"GN", "2.5.4.42"},
	{"initials", "2.5.4.43"},
	{"generationQualifier", "2.5.4.44"},
	{"dnQualifier", "2.5.4.46"},
	{"pseudonym", "2.5.4.65"},
	{"organizationIdentifier", "2.5.4.97"},
	{"UID", "0.9.2342.19200300.100.1.1"},
	{"DC", "0.9.2342.19200300.100.1.25"},
	{"emailAddress", "1.2.840.113549.1.9.1"},
	{"unstructuredName", "1.2.840.113549.1.9.2"},
	{"jurisdictionL", "1.3.6.1.4.1.311.60.2.1.1"},
	{"jurisdictionST", "1.3.6.1.4.1.311.60.2.1.2"},
	{"jurisdictionC", "1.3.6.1.4.1.311.60.2.1.3"},
}

var dottedType = regexp.MustCompile(`^[0-2](\.(0|[1-9][0-9]*))+$`)

// attribute is one of an RDN, as it is in a certificate.
type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// attributeSET is an RDN; the end of its name tells package asn1 that it is a SET.
type attributeSET []attribute

// nameOf is the text of a distinguished name in a certificate.
func nameOf(der []byte) (string, error) {
	var rdns []attributeSET
	if rest, err := asn1.Unmarshal(der, &rdns); err != nil || len(rest) > 0 {
		return "", errors.New("the name of its issuer cannot be read")
	}
	var all []string
	for _, rdn := range slices.Backward(rdns) { // RFC 4514 §2.1
		var parts []string
		for _, a := range rdn {
			parts = append(parts, typeName(a.Type.String())+"="+valueText(a.Value))
		}
		all = append(all, join(parts))
	}
	return strings.Join(all, ","), nil
}

// parseName is nameOf for a name that somebody wrote. It takes what "openssl x509 -nameopt RFC2253" writes, and refuses what could be meant in
// two ways, since a name that matches nobody would let the certificate in.
func parseName(text string) (string, error) {
	var all []string
	for _, rdn := range splitName(text, ',') {
		var parts []string
		for _, part := range splitName(rdn, '+') {
			a, err := parseAttribute(part)
			if err != nil {
				return "", err
			}
			parts = append(parts, a)
		}
		all = append(all, join(parts))
	}
	return strings.Join(all, ","), nil
}

func join(parts []string) string {
	slices.Sort(parts)
	return strings.Join(parts, "+")
}

// splitName splits at what is not escaped.
func splitName(text string, at byte) []string {
	var parts []string
	begin := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case at:
			parts = append(parts, text[begin:i])
			begin = i + 1
		}
	}
	return append(parts, text[begin:])
}

func parseAttribute(text string) (string, error) {
	name, value, ok := strings.Cut(text, "=")
	if !ok {
		return "", fmt.Errorf("%s of the issuer is not an attribute, such as CN=Acme CA: write the name as openssl x509 -nameopt RFC2253 does", quote(text))
	}
	kind, err := parseType(name)
	if err != nil {
		return "", err
	}
	if digits, ok := strings.CutPrefix(value, "#"); ok {
		var raw asn1.RawValue
		der, err := hex.DecodeString(digits)
		if err == nil {
			der, err = asn1.Unmarshal(der, &raw)
		}
		if err != nil || len(der) > 0 {
			return "", fmt.Errorf("%s of the issuer is not the hex of a value: write \\# if it is a text that begins so", quote(text))
		}
		return kind + "=" + valueText(raw), nil
	}
	plain, err := unescape(value)
	if err != nil {
		return "", fmt.Errorf("%s of the issuer: %w", quote(text), err)
	}
	return kind + "=" + escape(plain), nil
}

func parseType(name string) (string, error) {
	if dottedType.MatchString(name) {
		return typeName(name), nil
	}
	for _, t := range attributeTypes {
		if strings.EqualFold(t.name, name) {
			return t.name, nil
		}
	}
	return "", fmt.Errorf("attribute type %s of the issuer is not known: write the name as openssl x509 -nameopt RFC2253 does, and this type as its OID",
		quote(name))
}

// typeName is the name of an attribute type, if it has one.
func typeName(oid string) string {
	for _, t := range attributeTypes {
		if t.oid == oid {
			return t.name
		}
	}
	return oid
}

// unescape reads a value (RFC 4514 §3).
func unescape(value string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == '\\' && i+1 < len(value) && strings.IndexByte(` "#+,;<=>\`, value[i+1]) >= 0:
			i++
			b.WriteByte(value[i])
		case c == '\\':
			one, err := hex.DecodeString(value[min(i+1, len(value)):min(i+3, len(value))])
			if err != nil || len(one) != 1 {
				return "", errors.New(`after \ comes a character of its own, or two hex digits`)
			}
			i += 2
			b.Write(one)
		case strings.IndexByte(`"+,;<>`, c) >= 0 || c < ' ' || c == 0x7f:
			return "", fmt.Errorf(`the character %q needs a \ before it`, c)
		case c == ' ' && (i == 0 || i == len(value)-1):
			return "", errors.New(`a blank at the begin or end of a value needs a \ before it`)
		case c == '#' && i > 0 && value[i-1] == ' ' && !escaped(value, i-1):
			return "", errors.New(`a line with an issuer has no comment; if # is part of the name, write \#`)
		default:
			b.WriteByte(c)
		}
	}
	if !utf8.ValidString(b.String()) {
		return "", errors.New("it is not UTF-8")
	}
	return b.String(), nil
}

// escaped reports whether an odd number of backslashes is before a character.
func escaped(value string, i int) bool {
	before := strings.TrimRight(value[:i], `\`)
	return (i-len(before))%2 == 1
}

// escape writes a value so that unescape takes it.
func escape(value string) string {
	var b strings.Builder
	for i, r := range value {
		switch {
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\%02X`, r)
			continue
		case strings.ContainsRune(`"#+,;<>\`, r), i == 0 && r == ' ', i == len(value)-1 && r == ' ':
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// valueText is a value of a certificate: the text of any kind of string, escaped, or else the hex of what it is.
func valueText(v asn1.RawValue) string {
	if v.Class == asn1.ClassUniversal && !v.IsCompound {
		if text, ok := decode(v.Tag, v.Bytes); ok {
			return escape(text)
		}
	}
	return "#" + hex.EncodeToString(v.FullBytes)
}

// decode reads a string of the kinds that crypto/x509 lets into a name. openssl takes those of one byte for Latin-1, whatever the standard says.
func decode(tag int, data []byte) (text string, ok bool) {
	switch tag {
	case asn1.TagUTF8String:
		return string(data), utf8.Valid(data)
	case asn1.TagNumericString, asn1.TagPrintableString, asn1.TagT61String, asn1.TagIA5String:
		var runes []rune
		for _, c := range data {
			runes = append(runes, rune(c))
		}
		return string(runes), true
	case asn1.TagBMPString:
		var runes []rune
		for ; len(data) >= 2; data = data[2:] {
			runes = append(runes, rune(data[0])<<8|rune(data[1]))
		}
		return string(runes), len(data) == 0 && !slices.ContainsFunc(runes, utf16.IsSurrogate)
	}
	return "", false
}
