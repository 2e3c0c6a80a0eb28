package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func (c *cli) auditFind() *cobra.Command {
	token := &secretFlags{name: "token"}
	var mac string
	cmd := &cobra.Command{Use: "find", Short: "Say who was given an access token that was found where it should not be", Args: takes(),
		Long: `Says who was given an access token: by call, by report or by stream, as far back as the trail reaches. The trail holds a
keyed hash of each token. The token goes in by standard input, a file or a prompt, and the broker compares it and forgets it;
--mac takes the hash from a record instead, and finds what was written under the same key alone.

The answer is of tokens of credentials on which the policy gives you audit.find. A token that is not known ends with status
3.`,
		Example: `  tokenctl audit find --token-file leaked.txt
  tokenctl audit find --mac k1:Zm9vYmFyYmF6cXV4cXV1eGNvcmdl -o json`}
	cmd.RunE = c.with(func(ctx context.Context, s *session, _ []string) error {
		req := &tokenbrokerv1.FindTokenRequest{TokenMac: mac}
		if mac != "" && token.given() {
			return usagef("give the token or --mac, not both")
		}
		if mac == "" {
			secret, err := token.read(ctx, c)
			if err != nil {
				return err
			}
			req.AccessToken = secret.Reveal()
		}
		resp, err := call(ctx, s, s.audits.FindToken, req)
		if err != nil {
			return err
		}
		if err := s.emit(resp, func(w io.Writer) error { return s.foundToken(w, resp, time.Now()) }); err != nil || resp.GetKnown() {
			return err
		}
		return &failure{exit: exitNotFound, what: "the token is not known: no record names it, or it is of a credential on which you have no audit.find"}
	})
	token.add(cmd)
	cmd.Flags().StringVar(&mac, "mac", "", "the token's keyed hash, as records have it")
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

func (s *session) foundToken(w io.Writer, r *tokenbrokerv1.FindTokenResponse, now time.Time) error {
	if !r.GetKnown() {
		_, err := fmt.Fprintf(s.errs, "records were looked at back to %s\n", both(r.GetOldestTime(), now, "none"))
		if err == nil && r.GetTokenMac() != "" {
			_, err = fmt.Fprintf(s.errs, "compressed files are not read: look for its hash there, as with zgrep %s\n", word(r.GetTokenMac()))
		}
		return err
	}
	if err := describe(w, []section{{"Token of " + r.GetCredential(), [][2]string{
		{"Generation", fmt.Sprint(r.GetGeneration())},
		{"Expires", both(r.GetExpireTime(), now, "not known")},
		{"Looked back to", both(r.GetOldestTime(), now, "-")},
	}}}); err != nil {
		return err
	}
	if len(r.GetHolders()) == 0 {
		_, err := fmt.Fprintln(w, "\nNobody was given it.")
		return err
	}
	rows := make([][]string, 0, len(r.GetHolders()))
	for _, h := range r.GetHolders() {
		rows = append(rows, []string{or(h.GetIdentity(), "(not known: opened before the oldest record)"), h.GetWay(), fmt.Sprint(h.GetCount()),
			stamp(h.GetFirstTime().AsTime()), stamp(h.GetLastTime().AsTime()), or(h.GetPeer(), "-"), short(h.GetCertificate()), or(h.GetRule(), "-")})
	}
	_, _ = fmt.Fprintln(w) // the table reports it
	if err := s.table(w, []string{"IDENTITY", "WAY", "TIMES", "FIRST", "LAST", "PEER", "CERTIFICATE", "RULE"}, rows); err != nil || !r.GetTruncated() {
		return err
	}
	_, err := fmt.Fprintln(s.errs, "there may be more: not all was listed or looked at")
	return err
}

// short is enough of a fingerprint to tell it from others by eye.
func short(fingerprint string) string {
	if len(fingerprint) > 16 {
		return fingerprint[:16] + "…"
	}
	return or(fingerprint, "-")
}
