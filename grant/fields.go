package grant

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// fields are the members of a reply object.
type fields struct {
	raw     map[string]json.RawMessage
	unclear map[string]bool // members given twice with different values; they are not in raw
	whole   bool            // the object came to its end
}

func newFields() fields {
	return fields{raw: map[string]json.RawMessage{}, unclear: map[string]bool{}}
}

// parse reads a reply: the JSON object or the form that it starts with. fields without members mean that it is neither. cut
// says that the body ended early, which a form does not show by itself.
func parse(body []byte, cut bool) fields {
	body = bytes.TrimLeft(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")), " \t\r\n")
	if len(body) > 0 && body[0] == '{' {
		return parseObject(body)
	}
	if cut {
		body = body[:max(0, bytes.LastIndexByte(body, '&'))] // the last member may be half of one
	}
	f := parseForm(body)
	f.whole = f.whole && !cut
	return f
}

// parseObject reads the members of a JSON object up to its end or the first that is not whole. What follows the object is ignored.
func parseObject(body []byte) fields {
	f := newFields()
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return f
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return f
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return f
		}
		f.add(key.(string), value)
	}
	t, err := dec.Token()
	f.whole = err == nil && t == json.Delim('}')
	return f
}

func (f fields) add(key string, value json.RawMessage) {
	old, twice := f.raw[key]
	switch {
	case f.unclear[key]:
	case twice && !bytes.Equal(old, value):
		delete(f.raw, key)
		f.unclear[key] = true
	default:
		f.raw[key] = value
	}
}

// parseForm reads a form. A text is one only if it has a member that a token reply can start from: nearly any text parses.
func parseForm(body []byte) fields {
	f := newFields()
	values, err := url.ParseQuery(string(bytes.TrimRight(body, " \t\r\n")))
	if err != nil || !values.Has("access_token") && !values.Has("refresh_token") && !values.Has("error") {
		return f
	}
	for key, list := range values {
		for _, v := range list {
			value, err := json.Marshal(v)
			if err != nil {
				return fields{}
			}
			f.add(key, value)
		}
	}
	f.whole = true
	return f
}

// isUnclear reports whether one of the members, named by the first step of their paths, has two values.
func (f fields) isUnclear(paths ...string) bool {
	return slices.ContainsFunc(paths, func(p string) bool {
		first, _, _ := strings.Cut(p, ".")
		return f.unclear[first]
	})
}

// at returns the object at a dotted path; the path "" is f itself.
func (f fields) at(path string) fields {
	for step := range strings.SplitSeq(path, ".") {
		if step == "" {
			return f
		}
		value := f.raw[step]
		if len(value) == 0 || value[0] != '{' {
			return fields{whole: f.whole}
		}
		f = parseObject(value)
	}
	return f
}

// value returns the raw value at a dotted path.
func (f fields) value(path string) json.RawMessage {
	dot := strings.LastIndexByte(path, '.')
	if dot < 0 {
		return f.raw[path]
	}
	return f.at(path[:dot]).raw[path[dot+1:]]
}

// text returns the string at a path, "" if there is none.
func (f fields) text(path string) string {
	var s *string
	if err := json.Unmarshal(orNull(f.value(path)), &s); err != nil || s == nil {
		return ""
	}
	return *s
}

// scalar returns a string, number or boolean at a path as text, "" if there is none.
func (f fields) scalar(path string) string {
	value := f.value(path)
	if len(value) == 0 || value[0] == '{' || value[0] == '[' || string(value) == "null" {
		return ""
	}
	if value[0] == '"' {
		return f.text(path)
	}
	return string(value)
}

// number returns a number, or a string that holds one, at a path. Whatever else is there counts as nothing.
func (f fields) number(path string) (float64, bool) {
	s := strings.TrimSpace(f.scalar(path))
	if s == "" || strings.Trim(s, "0123456789+-.eE") != "" {
		return 0, false
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil && !strings.Contains(err.Error(), strconv.ErrRange.Error()) {
		return 0, false
	}
	return n, true // out of range is ±Inf or 0, which the limits take care of
}

// texts returns a string split at blanks and separator, or the strings of an array.
func (f fields) texts(path, separator string) []string {
	value := f.value(path)
	if len(value) > 0 && value[0] == '[' {
		var list []string
		if err := json.Unmarshal(value, &list); err != nil {
			return nil
		}
		return list
	}
	return strings.FieldsFunc(f.text(path), func(r rune) bool {
		return strings.ContainsRune(separator, r) || strings.ContainsRune(" \t\r\n", r)
	})
}

func orNull(value json.RawMessage) json.RawMessage {
	if len(value) == 0 {
		return json.RawMessage("null")
	}
	return value
}
