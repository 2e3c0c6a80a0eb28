package client

import (
	"maps"
	"net/http"
	"slices"
)

// Challenges reads WWW-Authenticate fields, and writes each challenge as "scheme name=value …", sorted by name.
func Challenges(fields []string) []string {
	var all []string
	for _, c := range challenges(fields) {
		s := c.scheme
		for _, name := range slices.Sorted(maps.Keys(c.params)) {
			s += " " + name + "=" + c.params[name]
		}
		all = append(all, s)
	}
	return all
}

// ReportCode is what the broker is told of a reply.
func ReportCode(status int, field string) string {
	return codeOf(&http.Response{StatusCode: status, Header: http.Header{"Www-Authenticate": {field}}})
}
