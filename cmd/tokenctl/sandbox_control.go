package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// steer sends a request to the control endpoint of a sandbox and reads the answer into out.
func (c *cli) steer(ctx context.Context, cmd *cobra.Command, method, path string, in, out any) error {
	base, err := cmd.Flags().GetString("control")
	if err != nil {
		return err
	}
	if base = or(base, os.Getenv(controlVariable)); base == "" {
		return usageError("which sandbox? say so by --control or "+controlVariable, "tokenctl sandbox serve")
	}
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(base, "/")+"/control/"+path, bytes.NewReader(body))
	if err != nil {
		return usagef("--control: give a URL such as http://127.0.0.1:9000")
	}
	r.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy stands before loopback
	res, err := client.Do(r)
	if err != nil {
		return &failure{exit: exitLater, what: "the sandbox can't be reached: " + reasonOfHTTP(err), do: "tokenctl sandbox serve", err: err}
	}
	defer res.Body.Close()
	return answered(res, out)
}

// reasonOfHTTP leaves out method and URL, which are known.
func reasonOfHTTP(err error) string {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}

// maxAnswer bounds what is read of an answer; a full journal is some megabytes.
const maxAnswer = 64 << 20

func answered(res *http.Response, out any) error {
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		var refused struct {
			Error string `json:"error"`
		}
		if json.Unmarshal(data, &refused) != nil || refused.Error == "" {
			refused.Error = res.Status
		}
		return usagef("the sandbox says: %s", refused.Error)
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}

// steering is a command that sends what its arguments say and prints one member of the answer, "" = nothing.
func (c *cli) steering(use, short, path, prints string, args cobra.PositionalArgs, request func(args []string) (map[string]any, error)) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: args}
	cmd.RunE = c.do(func(ctx context.Context, cmd *cobra.Command, args []string) error {
		in, err := request(args)
		if err != nil {
			return err
		}
		out := map[string]any{}
		if err := c.steer(ctx, cmd, http.MethodPost, path, in, &out); err != nil || prints == "" {
			return err
		}
		_, err = fmt.Fprintln(c.out, clean(fmt.Sprint(out[prints])))
		return err
	})
	return cmd
}

// named makes a request of arguments by position.
func named(names ...string) func([]string) (map[string]any, error) {
	return func(args []string) (map[string]any, error) {
		in := map[string]any{}
		for n, a := range args {
			if n < len(names) {
				in[names[n]] = a
			}
		}
		return in, nil
	}
}

func (c *cli) sandboxFault() *cobra.Command {
	var help bytes.Buffer
	faultHelp(&help)
	cmd := c.steering("fault ISSUER KIND [FIELD=VALUE…]", "Make coming requests fail", "faults", "", atLeast("ISSUER", "KIND"), func(args []string) (map[string]any, error) {
		return readFault(args[0], args[1], args[2:])
	})
	cmd.Long = "Adds a fault to what is to come at an issuer. Each request meets the first fault that matches it.\n\nKinds:\n\n" + help.String() + `
Fields are those of a fault in a scenario: times, after_commit, endpoint, grant_type, client_id, chance, code, description, status,
retry_after, retry_date, delay, delay_to, life, skew, expires, body, redirect, omit (separated by commas), truncate, drip, bearer
and name.`
	cmd.Example = "  tokenctl sandbox fault acme error code=invalid_grant times=2\n  tokenctl sandbox fault acme lost grant_type=refresh_token\n" +
		"  tokenctl sandbox fault acme throttle retry_after=30s times=-1"
	return cmd
}

// atLeast wants these arguments and takes more.
func atLeast(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if n := len(args); n < len(names) {
			return fmt.Errorf("the argument %s is missing", names[n])
		}
		return nil
	}
}

// readFault makes a fault of the words of a command line.
func readFault(issuer, kind string, fields []string) (map[string]any, error) {
	in := map[string]any{"issuer": issuer, "kind": kind}
	for n, f := range fields {
		name, value, ok := strings.Cut(f, "=")
		if !ok {
			return nil, usagef("argument %d: give FIELD=VALUE", n+3)
		}
		var err error
		switch name {
		case "times", "status", "truncate":
			in[name], err = strconv.Atoi(value)
		case "chance":
			in[name], err = strconv.ParseFloat(value, 64)
		case "after_commit":
			in[name], err = strconv.ParseBool(value)
		case "omit":
			in[name] = strings.Split(value, ",")
		case "issuer", "kind":
			err = errors.New("it is an argument of its own")
		default:
			in[name] = value
		}
		if err != nil {
			return nil, usagef("argument %d: the value of %s does not fit", n+3, name)
		}
	}
	return in, nil
}

func (c *cli) sandboxFaults() *cobra.Command {
	cmd := &cobra.Command{Use: "faults ISSUER", Short: "List the faults that are still to come", Args: takes("ISSUER")}
	cmd.RunE = c.do(func(ctx context.Context, cmd *cobra.Command, args []string) error {
		var out struct {
			Faults []struct {
				Name, Does, Endpoint string
				Times                int
			}
		}
		if err := c.steer(ctx, cmd, http.MethodGet, "faults?issuer="+url.QueryEscape(args[0]), nil, &out); err != nil {
			return err
		}
		rows := [][]string{}
		for _, f := range out.Faults {
			rows = append(rows, []string{or(f.Name, "-"), f.Endpoint, times(f.Times), f.Does})
		}
		return c.table(c.out, []string{"NAME", "ENDPOINT", "TIMES", "DOES"}, rows)
	})
	return cmd
}

func times(n int) string {
	if n < 0 {
		return "always"
	}
	return strconv.Itoa(n)
}

func (c *cli) sandboxClear() *cobra.Command {
	cmd := &cobra.Command{Use: "clear ISSUER", Short: "Drop the faults that are still to come, and say how many they were", Args: takes("ISSUER")}
	cmd.RunE = c.do(func(ctx context.Context, cmd *cobra.Command, args []string) error {
		var out struct{ Cleared int }
		if err := c.steer(ctx, cmd, http.MethodDelete, "faults?issuer="+url.QueryEscape(args[0]), nil, &out); err != nil {
			return err
		}
		_, err := fmt.Fprintln(c.out, out.Cleared)
		return err
	})
	return cmd
}

func (c *cli) sandboxRelease() *cobra.Command {
	return c.steering("release ISSUER", "Let go the requests that hang", "release", "", takes("ISSUER"), named("issuer"))
}

func (c *cli) sandboxAdvance() *cobra.Command {
	cmd := c.steering("advance DURATION", "Move the sandbox's clock, and print its time", "advance", "now", takes("DURATION"), func(args []string) (map[string]any, error) {
		if _, err := time.ParseDuration(args[0]); err != nil {
			return nil, usagef("argument 1: give a duration such as 90s or 1h")
		}
		return map[string]any{"by": args[0]}, nil
	})
	cmd.Example = "  tokenctl sandbox advance 1h"
	return cmd
}

func (c *cli) sandboxRotation() *cobra.Command {
	return c.steering("rotation ISSUER strict|grace|none [GRACE]", "Change what becomes of refresh tokens that are used", "rotation", "",
		between(2, "ISSUER", "ROTATION", "GRACE"), named("issuer", "rotation", "grace"))
}

// between wants at least the first n of these arguments, and no more than all.
func between(n int, names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		return errors.Join(atLeast(names[:n]...)(cmd, args), atMost(names...)(cmd, args))
	}
}

func (c *cli) sandboxSeed() *cobra.Command {
	return c.steering("seed ISSUER CLIENT [SCOPE…]", "Begin a grant, as if somebody had consented, and print its refresh token", "seed", "refresh_token",
		atLeast("ISSUER", "CLIENT"), func(args []string) (map[string]any, error) {
			return map[string]any{"issuer": args[0], "client_id": args[1], "scopes": args[2:]}, nil
		})
}

// sandboxRevoke reads the token from standard input, as every command does that takes one.
func (c *cli) sandboxRevoke() *cobra.Command {
	return c.steering("revoke", "End the grant of the token on standard input, and say whether it was known", "revoke", "known", takes(), func([]string) (map[string]any, error) {
		token, err := io.ReadAll(io.LimitReader(c.in, maxAnswer))
		return map[string]any{"token": strings.TrimSpace(string(token))}, err
	})
}

func (c *cli) sandboxApprove() *cobra.Command {
	return c.steering("approve ISSUER USER_CODE ACCOUNT", "Allow a device", "activate", "", takes("ISSUER", "USER_CODE", "ACCOUNT"), named("issuer", "user_code", "account"))
}

func (c *cli) sandboxDeny() *cobra.Command {
	return c.steering("deny ISSUER USER_CODE", "Deny a device", "activate", "", takes("ISSUER", "USER_CODE"), func(args []string) (map[string]any, error) {
		return map[string]any{"issuer": args[0], "user_code": args[1], "deny": true}, nil
	})
}

func (c *cli) sandboxAuthorize() *cobra.Command {
	return c.steering("authorize ISSUER URL ACCOUNT", "Consent at an authorization URL, and print where the browser would be sent", "authorize", "redirect",
		takes("ISSUER", "URL", "ACCOUNT"), named("issuer", "url", "account"))
}
