package grant

import (
	"context"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// typeAPIKey is the type of a static token that goes into a header of its own, which metadata "header" names.
const typeAPIKey = "APIKey"

// static hands out the token that the grant holds, until it expires. Nothing is sent.
func static() grantKind {
	return grantKind{public: true, mint: mintStatic}
}

func mintStatic(_ context.Context, _ *Client, q *query, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
	now := time.Now()
	out := tokenbroker.ExchangeReply{Sent: now}
	t := tokenbroker.Token{AccessToken: r.RefreshToken, Type: "Bearer", Scopes: q.asked.Scopes, Expiry: r.RefreshEnd, Obtained: now}
	switch {
	case r.RefreshToken.IsZero():
		return out, refuse("token_missing")
	case t.Expiry.IsZero():
		t.Expiry, t.ExpiryEstimated = now.Add(maxLife).Round(0), true
	case !t.Expiry.After(now):
		return out, refuse("static_token_expired")
	}
	if header := q.at.profile.APIKeyHeader; header != "" {
		t.Type, t.Metadata = typeAPIKey, map[string]string{tokenbroker.HeaderField: header}
	}
	out.Token = &t
	return out, nil
}
