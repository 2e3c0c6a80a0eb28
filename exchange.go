package tokenbroker

import "time"

// ExchangeRequest is one token request, to be sent at most once.
type ExchangeRequest struct {
	Credential   Credential   // grant type, provider and scopes of the grant
	Client       OAuthClient  // whom to authenticate as; its Secrets are not looked at
	Secret       ClientSecret // the one to authenticate with; zero for a public client
	Variant      Variant      // what to ask for; empty parts are taken from the credential
	RefreshToken Secret       // refresh_token grant only
}

// ExchangeReply is what a token request brought. It may hold a refresh token though the exchange as a whole failed: that
// one is to be stored before anything else is done, because the one that was sent may be spent.
type ExchangeReply struct {
	Token        *Token    // nil if the reply held none that can be served; Generation is 0
	RefreshToken Secret    // a plausible new refresh token; zero if the reply named none, so the old one stays
	RefreshEnd   time.Time // when the refresh token dies, if the reply said so; zero = it did not
	Sent         time.Time // when the request was sent, with a monotonic reading; lives count from here
}
