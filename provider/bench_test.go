package provider_test

import (
	"testing"

	"github.com/tokenbroker/tokenbroker/provider"
)

// BenchmarkNew is what a start pays once the built-in profiles were read.
func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		if _, err := provider.New(map[string]provider.Profile{"acme": {TokenEndpoint: endpoint}}); err != nil {
			b.Fatal(err)
		}
	}
}
