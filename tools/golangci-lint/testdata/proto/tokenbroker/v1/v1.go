// Package tokenbrokerv1 stands for the generated code.
package tokenbrokerv1

// GetTokenResponse stands for a message.
type GetTokenResponse struct{}

// String gives everything away.
func (GetTokenResponse) String() string { return "secret" }
