package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (c *cli) sandboxKey() *cobra.Command {
	var base string
	cmd := &cobra.Command{Use: "key ISSUER EMAIL", Short: "Make a key of a service account, and print its JSON file", Args: takes("ISSUER", "EMAIL")}
	cmd.RunE = c.do(func(ctx context.Context, cmd *cobra.Command, args []string) error {
		out := map[string]any{}
		if err := c.steer(ctx, cmd, http.MethodPost, "key", map[string]string{"issuer": args[0], "email": args[1], "base": base}, &out); err != nil {
			return err
		}
		data, err := json.MarshalIndent(out, "", "  ")
		if err != nil {
			return fmt.Errorf("encode key: %w", err)
		}
		_, err = c.out.Write(append(data, '\n'))
		return err
	})
	cmd.Flags().StringVar(&base, "base", "", "`URL` of the sandbox, for the file's token_uri")
	if err := cmd.MarkFlagRequired("base"); err != nil {
		panic(err) // the flag is two lines above
	}
	return cmd
}

// journal is what the control endpoint tells of requests.
type journal struct {
	Count   int            `json:"count"`
	Entries []journalEntry `json:"entries"`
}

type journalEntry struct {
	Time      time.Time `json:"time"`
	Host      string    `json:"host"`
	Issuer    string    `json:"issuer"`
	Endpoint  string    `json:"endpoint"`
	GrantType string    `json:"grant_type"`
	ClientID  string    `json:"client_id"`
	Refresh   string    `json:"refresh_token_fingerprint"`
	Fault     string    `json:"fault"`
	Processed bool      `json:"processed"`
	Status    int       `json:"status"`
	Code      string    `json:"code"`
}

func (c *cli) sandboxJournal() *cobra.Command {
	var count bool
	cmd := &cobra.Command{Use: "journal [FILTER=VALUE…]", Short: "Show the requests that came", Args: cobra.ArbitraryArgs,
		Long:    "Shows the newest requests in order of arrival, without any token or secret.\n\nFilters: issuer, endpoint, grant_type, client_id, fault, status, code, unanswered=true.",
		Example: "  tokenctl sandbox journal issuer=acme grant_type=refresh_token\n  tokenctl sandbox journal --count status=429"}
	cmd.RunE = c.do(func(ctx context.Context, cmd *cobra.Command, args []string) error {
		query := url.Values{}
		for n, a := range args {
			name, value, ok := strings.Cut(a, "=")
			if !ok {
				return usagef("argument %d: give FILTER=VALUE", n+1)
			}
			query.Set(name, value)
		}
		var j journal
		if err := c.steer(ctx, cmd, http.MethodGet, "journal?"+query.Encode(), nil, &j); err != nil {
			return err
		}
		return c.showJournal(j, count)
	})
	cmd.Flags().BoolVar(&count, "count", false, "print only how many there were, those included that are no longer kept")
	c.outputs(cmd, "table", "json")
	return cmd
}

func (c *cli) showJournal(j journal, count bool) error {
	switch {
	case count:
		_, err := fmt.Fprintln(c.out, j.Count)
		return err
	case c.format == "json":
		data, err := json.MarshalIndent(j, "", "  ")
		if err != nil {
			return fmt.Errorf("encode journal: %w", err)
		}
		_, err = c.out.Write(literal(append(data, '\n')))
		return err
	}
	rows := make([][]string, 0, len(j.Entries))
	for _, e := range j.Entries {
		rows = append(rows, []string{stamp(e.Time), or(e.Issuer, "-"), or(e.Endpoint, "-"), or(shortGrant(e.GrantType), "-"), or(e.ClientID, "-"),
			or(e.Fault, "-"), statusWord(e.Status), or(e.Code, "-")})
	}
	return c.table(c.out, []string{"TIME", "ISSUER", "ENDPOINT", "GRANT", "CLIENT", "FAULT", "STATUS", "CODE"}, rows)
}

// shortGrant is a grant type without the prefix that all long ones share.
func shortGrant(g string) string { return strings.TrimPrefix(g, "urn:ietf:params:oauth:grant-type:") }

func statusWord(status int) string {
	if status == 0 {
		return "none"
	}
	return strconv.Itoa(status)
}
