package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/client"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// variant is what a token is to be like, as flags say: the same for all commands that hand a token to a job.
type variant struct {
	scopes            []string
	subject, audience string
	validity          time.Duration
	validitySet       bool
}

// addSelection adds the flags that say which token it is.
func (v *variant) addSelection(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&v.scopes, "scope", nil, "a scope that the token has to have; repeatable (default: the credential's own)")
	f.StringVar(&v.subject, "subject", "", "whom the token is to act for (default: the credential's own)")
	f.StringVar(&v.audience, "audience", "", "whom the token is for (default: the credential's own)")
}

// add adds these, and how long it has to be valid.
func (v *variant) add(cmd *cobra.Command) {
	v.addSelection(cmd)
	cmd.Flags().DurationVar(&v.validity, "min-validity", 0, "how long the token has to be valid yet, up to 24h")
	run := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if v.validitySet = cmd.Flags().Changed("min-validity"); run != nil {
			return run(cmd, args)
		}
		return nil
	}
}

func (v *variant) request(credential string) *tokenbrokerv1.GetTokenRequest {
	req := &tokenbrokerv1.GetTokenRequest{Credential: credential, Scopes: v.scopes, Subject: v.subject, Audience: v.audience}
	if v.validitySet {
		req.MinValidity = durationpb.New(v.validity)
	}
	return req
}

// options say the same to package client.
func (v *variant) options() []client.Option {
	return client.Wanted(v.scopes, v.subject, v.audience, v.validity)
}

// handed gets a token that may stand in a header, a file and an environment variable.
func (s *session) handed(ctx context.Context, req *tokenbrokerv1.GetTokenRequest) (*tokenbrokerv1.GetTokenResponse, error) {
	resp, err := call(ctx, s, s.tokens.GetToken, req)
	if err != nil {
		return nil, err
	}
	return resp, sound(req.GetCredential(), resp.GetToken())
}

// sound refuses a token with characters that could end its header, or its line.
func sound(credential string, token *tokenbrokerv1.Token) error {
	if !visible(token.GetAccessToken()) || !visible(token.GetTokenType()) || !visible(token.GetMetadata()[tokenbroker.HeaderField]) {
		return fmt.Errorf("credential %s: its token has characters that no token may have (RFC 6749, appendix A.12)", credential)
	}
	return nil
}

// bearer refuses a token that is sent otherwise than as a bearer token, where a protocol knows no other way.
func bearer(credential string, token *tokenbrokerv1.Token) error {
	if own := token.GetMetadata()[tokenbroker.HeaderField]; own != "" || scheme(token.GetTokenType()) != "Bearer" {
		return &failure{exit: exitFix, what: "credential " + credential + " is no bearer token", action: "name a credential whose token is one"}
	}
	return nil
}
