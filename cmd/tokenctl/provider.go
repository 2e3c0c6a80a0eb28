package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func (c *cli) providerCommand() *cobra.Command {
	cmd := c.group("provider", "See the providers that the broker knows, and check a profile of your own", c.providerList(), c.providerShow(), c.providerLint())
	cmd.Aliases = []string{"providers"}
	return cmd
}

func (c *cli) providerList() *cobra.Command {
	var configured bool
	cmd := &cobra.Command{Use: "list", Short: "List the providers that a credential can name", Args: takes(), Aliases: []string{"ls"}}
	cmd.RunE = c.with(func(ctx context.Context, s *session, _ []string) error {
		resp, err := call(ctx, s, s.providers.ListProviders, &tokenbrokerv1.ListProvidersRequest{})
		if err != nil {
			return err
		}
		var all []*tokenbrokerv1.Provider
		for _, p := range resp.GetProviders() {
			if p.GetConfigured() || !configured {
				all = append(all, p)
			}
		}
		return s.emit(&tokenbrokerv1.ListProvidersResponse{Providers: all}, func(w io.Writer) error {
			if len(all) == 0 {
				return s.none("providers")
			}
			rows := make([][]string, 0, len(all))
			for _, p := range all {
				rows = append(rows, []string{p.GetProvider(), or(p.GetTitle(), "-"), origin(p), list(p.GetGrantTypes(), anyGrant)})
			}
			return s.table(w, []string{"NAME", "TITLE", "FROM", "GRANTS, THE PREFERRED ONE FIRST"}, rows)
		})
	})
	cmd.Flags().BoolVar(&configured, "configured", false, "only those of the broker's configuration file")
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

// anyGrant is what a provider takes whose profile does not say.
const anyGrant = "all but password"

// origin is where a provider comes from.
func origin(p *tokenbrokerv1.Provider) string {
	if !p.GetConfigured() {
		return "built in"
	}
	if p.GetProfile() != "" && p.GetProfile() != p.GetProvider() {
		return "configuration (" + p.GetProfile() + ")"
	}
	return "configuration"
}

func (c *cli) providerShow() *cobra.Command {
	cmd := &cobra.Command{Use: "show PROVIDER", Short: "Show a provider: what to register there, scopes, and what is odd about it", Args: takes("PROVIDER"),
		ValidArgsFunction: c.providerNames(), Aliases: []string{"describe"}}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		resp, err := call(ctx, s, s.providers.GetProvider, &tokenbrokerv1.GetProviderRequest{Provider: args[0]})
		if err != nil {
			return err
		}
		return s.emit(resp, func(w io.Writer) error { return s.showProvider(w, resp.GetProvider()) })
	})
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

func (s *session) showProvider(w io.Writer, p *tokenbrokerv1.Provider) error {
	sections := []section{
		{strings.TrimSpace("Provider " + p.GetProvider() + "  " + p.GetTitle()), [][2]string{
			{"From", origin(p)},
			{"Grants", list(p.GetGrantTypes(), anyGrant)},
			{"Authentication", list(p.GetAuthMethods(), "-")},
			{"Token endpoint", or(p.GetTokenEndpoint(), "-")},
			{"Authorization endpoint", or(p.GetAuthorizationEndpoint(), "none")},
			{"Offers besides", list(p.GetOffers(), "-")},
		}},
		{"Redirect URIs to register there", [][2]string{
			{"For connect", localReturn(p)},
			{"For connect --link", linkReturn(p)},
		}},
	}
	if len(p.GetScopes()) > 0 {
		scopes := section{title: "Scopes, some of them"}
		for _, sc := range p.GetScopes() {
			scopes.rows = append(scopes.rows, [2]string{sc.GetScope(), or(sc.GetMeaning(), "-")})
		}
		sections = append(sections, scopes)
	}
	for _, warning := range p.GetWarnings() {
		sections = append(sections, section{title: "Warning: " + warning})
	}
	if err := describe(w, sections); err != nil {
		return err
	}
	return prose(w, p.GetNotes(), p.GetSources())
}

// localReturn is where connect has the provider send the browser.
func localReturn(p *tokenbrokerv1.Provider) string {
	uri := p.GetLoopbackRedirect()
	if uri == "" && p.GetAuthorizationEndpoint() != "" {
		uri = usualReturn
	}
	if p.GetAuthorizationEndpoint() == "" {
		return "none: it has no authorization endpoint"
	}
	if !strings.HasPrefix(uri, "http") {
		return "none: use --link or --device"
	}
	return strings.Replace(uri, anyPort, "PORT", 1)
}

// linkReturn is where the broker's own page has the provider send the browser.
func linkReturn(p *tokenbrokerv1.Provider) string {
	if p.GetAuthorizationEndpoint() == "" {
		return "none: it has no authorization endpoint"
	}
	return or(p.GetLinkRedirect(), "none: the broker has no consent listener")
}

// prose prints notes in Markdown as they are, line by line: they are written to be read that way.
func prose(w io.Writer, notes string, sources []string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if notes = strings.TrimSpace(notes); notes != "" {
		_, _ = fmt.Fprintln(t, "\nNotes") // Flush reports it
	}
	for line := range strings.Lines(notes) {
		_, _ = fmt.Fprintln(t, strings.TrimRight("  "+clean(strings.TrimRight(line, "\r\n")), " "))
	}
	if len(sources) > 0 {
		_, _ = fmt.Fprintln(t, "\nSources")
	}
	for _, source := range sources {
		_, _ = fmt.Fprintln(t, "  "+clean(source))
	}
	return t.Flush()
}
