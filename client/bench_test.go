package client_test

import (
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenbroker/tokenbroker/brokertest"
)

// BenchmarkCachedToken is what a worker pays for asking before each request, beside oauth2.ReuseTokenSource, which knows of one token
// and does not know when a newer one may be had.
func BenchmarkCachedToken(b *testing.B) {
	broker := brokertest.Start(b, brokertest.Config{})
	broker.AddClientCredentials("example/api", "files.read")
	c := worker(b, broker)
	source := c.TokenSource(b.Context(), "example/api")
	first, err := source.Token()
	if err != nil {
		b.Fatal(err)
	}
	reuse := oauth2.ReuseTokenSource(&oauth2.Token{AccessToken: first.AccessToken, Expiry: time.Now().Add(time.Hour)}, source)
	for name, ask := range map[string]func() error{
		"Token":            func() error { _, err := c.Token(b.Context(), "example/api"); return err },
		"TokenSource":      func() error { _, err := source.Token(); return err },
		"ReuseTokenSource": func() error { _, err := reuse.Token(); return err },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(128)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := ask(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
