package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// completing is how long somebody who pressed Tab waits for names.
const completing = 2 * time.Second

// completer is how cobra asks what can stand in a place of the command line.
type completer = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective)

// complete lists the values of a flag. The flag exists.
func complete(cmd *cobra.Command, flag string, values ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// names completes up to most arguments (-1 = any number) with what a look-up finds. A look-up that fails is silent: it must not spoil the
// line that somebody is typing.
func (c *cli) names(most int, look func(context.Context, *session) ([]string, error)) completer {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if most >= 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c.look(cmd, begun, func(ctx context.Context, s *session) ([]string, error) {
			found, err := look(ctx, s)
			return slices.DeleteFunc(found, func(name string) bool { return slices.Contains(args, name) }), err
		})
	}
}

// look finds what begins as what was typed.
func (c *cli) look(cmd *cobra.Command, begun string, find func(context.Context, *session) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	s, err := c.connect()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), min(completing, s.timeout))
	defer cancel()
	found, _ := find(ctx, s)
	return slices.DeleteFunc(found, func(name string) bool { return !strings.HasPrefix(name, begun) || clean(name) != name }),
		cobra.ShellCompDirectiveNoFileComp
}

func (c *cli) credentialNames(most int) completer {
	return c.names(most, func(ctx context.Context, s *session) (names []string, err error) {
		r, err := s.creds.ListCredentials(ctx, &tokenbrokerv1.ListCredentialsRequest{PageSize: 1000})
		for _, cred := range r.GetCredentials() {
			names = append(names, cred.GetCredential())
		}
		return names, err
	})
}

func (c *cli) clientNames() completer {
	return c.names(1, func(ctx context.Context, s *session) (names []string, err error) {
		r, err := s.clients.ListOAuthClients(ctx, &tokenbrokerv1.ListOAuthClientsRequest{PageSize: 1000})
		for _, cl := range r.GetOauthClients() {
			names = append(names, cl.GetOauthClient())
		}
		return names, err
	})
}

// completeClient lists the OAuth clients for --client.
func (c *cli) completeClient(cmd *cobra.Command) {
	_ = cmd.RegisterFlagCompletionFunc("client", func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return c.clientNames()(cmd, nil, begun)
	})
}

// secretIDs completes a client, and then the id of one of its secrets.
func (c *cli) secretIDs(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) != 1 {
		return c.clientNames()(cmd, args, begun)
	}
	return c.look(cmd, begun, func(ctx context.Context, s *session) (ids []string, err error) {
		r, err := s.clients.GetOAuthClient(ctx, &tokenbrokerv1.GetOAuthClientRequest{OauthClient: args[0]})
		for _, secret := range r.GetOauthClient().GetSecrets() {
			ids = append(ids, secret.GetSecretId())
		}
		return ids, err
	})
}

// completeProvider lists the providers for --provider.
func (c *cli) completeProvider(cmd *cobra.Command) {
	_ = cmd.RegisterFlagCompletionFunc("provider", func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return c.providerNames()(cmd, nil, begun)
	})
}

func (c *cli) providerNames() completer {
	return c.names(1, func(ctx context.Context, s *session) (names []string, err error) {
		r, err := s.providers.ListProviders(ctx, &tokenbrokerv1.ListProvidersRequest{})
		for _, p := range r.GetProviders() {
			names = append(names, p.GetProvider())
		}
		return names, err
	})
}

// consentIDs completes the ids of consents that are not over.
func (c *cli) consentIDs() completer {
	return c.names(1, func(ctx context.Context, s *session) (ids []string, err error) {
		r, err := s.consents.ListConsents(ctx, &tokenbrokerv1.ListConsentsRequest{})
		for _, consent := range r.GetConsents() {
			if consent.GetEndTime() == nil {
				ids = append(ids, consent.GetConsentId())
			}
		}
		return ids, err
	})
}
