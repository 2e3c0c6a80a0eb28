package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func (c *cli) clientCommand() *cobra.Command {
	cmd := c.group("client", "Keep OAuth clients: create, list, describe, update, delete, and their secrets",
		c.clientCreate(), c.clientList(), c.clientDescribe(), c.clientUpdate(), c.clientDelete(),
		c.group("secret", "Add and retire secrets, to rotate one without a gap", c.secretAdd(), c.secretRetire()))
	cmd.Aliases = []string{"clients"}
	return cmd
}

// clientHolder is a reply with an OAuth client.
type clientHolder interface {
	GetOauthClient() *tokenbrokerv1.OAuthClient
	proto.Message
}

// showClient prints a reply with an OAuth client: one row, for people.
func (s *session) showClient(m clientHolder) error {
	return s.emit(m, func(w io.Writer) error {
		return s.clientRows(w, []*tokenbrokerv1.OAuthClient{m.GetOauthClient()}, time.Now())
	})
}

func (s *session) clientRows(w io.Writer, all []*tokenbrokerv1.OAuthClient, now time.Time) error {
	rows := make([][]string, 0, len(all))
	for _, cl := range all {
		rows = append(rows, []string{cl.GetOauthClient(), cl.GetSpec().GetProvider(), cl.GetSpec().GetClientId(), authWord(cl.GetSpec().GetAuthMethod()),
			fmt.Sprint(len(cl.GetSecrets())), relative(due(cl), now), relative(cl.GetUpdateTime(), now)})
	}
	return s.table(w, []string{"NAME", "PROVIDER", "CLIENT ID", "AUTHENTICATION", "SECRETS", "DUE", "CHANGED"}, rows)
}

// due is when the first of the secrets has to be replaced, by its end or by the operator's own rule; nil = never, as far as is known.
func due(c *tokenbrokerv1.OAuthClient) (at *timestamppb.Timestamp) {
	for _, secret := range c.GetSecrets() {
		for _, t := range []*timestamppb.Timestamp{secret.GetExpireTime(), secret.GetRotateTime()} {
			if t != nil && (at == nil || t.AsTime().Before(at.AsTime())) {
				at = t
			}
		}
	}
	return at
}

func (c *cli) clientList() *cobra.Command {
	var p pages
	cmd := &cobra.Command{Use: "list", Short: "List the OAuth clients that you may list", Args: takes(), Aliases: []string{"ls"}}
	cmd.RunE = c.with(func(ctx context.Context, s *session, _ []string) error {
		all, err := s.allClients(ctx, p)
		if err != nil {
			return err
		}
		return s.emit(&tokenbrokerv1.ListOAuthClientsResponse{OauthClients: all}, func(w io.Writer) error {
			if len(all) == 0 {
				return s.none("OAuth clients")
			}
			return s.clientRows(w, all, time.Now())
		})
	})
	p.flags(cmd)
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

func (s *session) allClients(ctx context.Context, p pages) ([]*tokenbrokerv1.OAuthClient, error) {
	return every(ctx, p, func(ctx context.Context, size int32, token string) ([]*tokenbrokerv1.OAuthClient, string, error) {
		r, err := call(ctx, s, s.clients.ListOAuthClients, &tokenbrokerv1.ListOAuthClientsRequest{PageSize: size, PageToken: token})
		return r.GetOauthClients(), r.GetNextPageToken(), err
	}, func(*tokenbrokerv1.OAuthClient) bool { return true })
}

func (c *cli) clientDescribe() *cobra.Command {
	cmd := &cobra.Command{Use: "describe CLIENT", Short: "Show all that is known of an OAuth client", Args: takes("CLIENT"),
		ValidArgsFunction: c.clientNames(), Aliases: []string{"show"}}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		resp, err := call(ctx, s, s.clients.GetOAuthClient, &tokenbrokerv1.GetOAuthClientRequest{OauthClient: args[0]})
		if err != nil {
			return err
		}
		return s.emit(resp, func(w io.Writer) error { return describe(w, clientSections(resp.GetOauthClient(), time.Now())) })
	})
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

func clientSections(c *tokenbrokerv1.OAuthClient, now time.Time) []section {
	spec := c.GetSpec()
	secrets := section{title: "Secrets, oldest first"}
	for _, s := range c.GetSecrets() {
		secrets.rows = append(secrets.rows, [2]string{s.GetSecretId(), secretWords(s, now)})
	}
	if len(secrets.rows) == 0 {
		secrets.rows = [][2]string{{"None", "-"}}
	}
	return []section{
		{"OAuth client " + c.GetOauthClient(), [][2]string{
			{"Provider", spec.GetProvider()},
			{"Client id", spec.GetClientId()},
			{"Authentication", authWord(spec.GetAuthMethod())},
			{"Numeric id", or(spec.GetAccountId(), "-")},
			{"Labels", list(pairs(spec.GetLabels()), "-")},
		}},
		secrets,
		{"Record", [][2]string{
			{"Created", both(c.GetCreateTime(), now, "-")},
			{"Changed", both(c.GetUpdateTime(), now, "-")},
			{"ETag", or(c.GetEtag(), "-")},
		}},
	}
}

// secretWords is what may be known of a secret or key.
func secretWords(s *tokenbrokerv1.ClientSecret, now time.Time) string {
	var words []string
	add := func(name, value string) {
		if value != "" {
			words = append(words, strings.TrimSpace(name+" "+value))
		}
	}
	add("", or(s.GetKind(), "secret"))
	add("key id", s.GetKeyId())
	add("", s.GetAlgorithm())
	add("fingerprint", s.GetFingerprint())
	add("added", both(s.GetAddTime(), now, "-"))
	add("expires", both(s.GetExpireTime(), now, ""))
	add("replace by", both(s.GetRotateTime(), now, ""))
	return strings.Join(words, ", ")
}

func (c *cli) clientDelete() *cobra.Command {
	return c.deletion("CLIENT", c.clientNames(), "Remove an OAuth client that no credential uses",
		"Removes an OAuth client that no credential uses, with its secrets.",
		"OAuth client %s and its secrets", func(ctx context.Context, s *session, name, etag string) (proto.Message, error) {
			return call(ctx, s, s.clients.DeleteOAuthClient, &tokenbrokerv1.DeleteOAuthClientRequest{OauthClient: name, Etag: etag})
		})
}
