package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

const gitLong = `Is a credential helper of git: git runs it with get, store or erase, and tells it on standard input what it wants.

It answers for https alone, and for the hosts that --host names, with the port if the URL has one; git asks other helpers for the rest. A git
from 2.46 on that can send a bearer token gets one, unless the server asks for something else; any other git gets a user name and the token as
its password. If there is no token, git is told not to ask anybody else, and standard error says why.

store does nothing: git must not keep a token, so name no other helper for that host. When the server refuses a token, git says erase: the
broker is told, so that the next get brings a newer one.`

// gitJob is one tokenctl git-credential.
type gitJob struct {
	*session
	like     variant
	hosts    []string
	username string
	loopback bool
}

func (c *cli) gitCredentialCommand() *cobra.Command {
	j := &gitJob{}
	cmd := &cobra.Command{
		Use: "git-credential CREDENTIAL --host HOST {get|store|erase}", Short: "Give git access tokens, as a credential helper", Long: gitLong,
		Args: takes("CREDENTIAL", "OPERATION"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return []string{"get", "store", "erase"}, cobra.ShellCompDirectiveNoFileComp
			}
			return c.credentialNames(1)(cmd, args, begun)
		},
		Example: `  git config --global credential.https://git.example.helper '!tokenctl git-credential --host git.example example/git'`,
	}
	cmd.RunE = c.do(func(ctx context.Context, _ *cobra.Command, args []string) error {
		asked, err := j.read(c.in)
		if err != nil || !j.concerns(asked) {
			return err
		}
		switch args[1] {
		case "get":
			return j.answer(ctx, c, args[0], asked)
		case "erase":
			return j.erase(ctx, c, args[0], asked)
		}
		return nil // store, and what a later git may say: a helper has to ignore it
	})
	j.like.add(cmd)
	f := cmd.Flags()
	f.StringArrayVar(&j.hosts, "host", nil, "a host that gets the token, as it is in the URL: `HOST[:PORT]`; repeatable, required")
	f.StringVar(&j.username, "username", "x-access-token", "the user name that goes with a token as password, if the URL has none")
	f.BoolVar(&j.loopback, "loopback-http", false, "answer for http, too, to an address of this host that is written as a number")
	return cmd
}

// attributes are what git says, by name; those that may be there several times end with [].
type attributes map[string][]string

func (a attributes) one(name string) string { return strings.Join(a[name], "") }

// read reads what git says, up to an empty line.
func (j *gitJob) read(in io.Reader) (attributes, error) {
	if len(j.hosts) == 0 {
		return nil, usageError("--host is missing: a helper that answers for every host would give the token to any", "tokenctl git-credential --help")
	}
	asked := attributes{}
	const most = 1 << 20
	lines := bufio.NewScanner(io.LimitReader(in, most))
	lines.Buffer(nil, most)
	for lines.Scan() && lines.Text() != "" {
		name, value, _ := strings.Cut(lines.Text(), "=")
		if !strings.HasSuffix(name, "[]") {
			asked[name] = nil // the last one counts
		}
		asked[name] = append(asked[name], value)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read what git says: %w", err)
	}
	return asked, nil
}

// concerns reports whether the token is for the server that git asks about.
func (j *gitJob) concerns(asked attributes) bool {
	host := asked.one("host")
	if !slices.ContainsFunc(j.hosts, func(h string) bool { return strings.EqualFold(h, host) }) {
		return false
	}
	return asked.one("protocol") == "https" || j.loopback && asked.one("protocol") == "http" && thisHost(host)
}

// thisHost reports whether a host is an address of this host, written as a number.
func thisHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.IsLoopback()
}

// answer gives git the token. If there is none, git is to stop: no other helper has it, and nobody sits at a terminal of a job.
func (j *gitJob) answer(ctx context.Context, c *cli, credential string, asked attributes) (err error) {
	defer func() {
		if err != nil {
			_, _ = fmt.Fprintln(c.out, "quit=1")
		}
	}()
	if err := c.showable(true, false, "tokenctl get -o table"); err != nil {
		return err
	}
	token, err := j.token(ctx, c, credential)
	if j.session != nil {
		defer j.Close()
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(c.out, j.reply(token, asked))
	return err
}

func (j *gitJob) token(ctx context.Context, c *cli, credential string) (token *tokenbrokerv1.Token, err error) {
	if j.session, err = c.connect(); err != nil {
		return nil, err
	}
	resp, err := j.handed(ctx, j.like.request(credential))
	if err != nil {
		return nil, err
	}
	return resp.GetToken(), bearer(credential, resp.GetToken())
}

// reply is what git reads (gitcredentials(7), git-credential(1)).
func (j *gitJob) reply(token *tokenbrokerv1.Token, asked attributes) string {
	var b strings.Builder
	if byBearer(asked) {
		fmt.Fprintf(&b, "capability[]=authtype\nauthtype=Bearer\ncredential=%s\nephemeral=1\n", token.GetAccessToken())
	} else {
		fmt.Fprintf(&b, "username=%s\npassword=%s\n", cmp.Or(asked.one("username"), j.username), token.GetAccessToken())
	}
	if t := token.GetExpireTime(); t != nil {
		fmt.Fprintf(&b, "password_expiry_utc=%d\n", t.GetSeconds())
	}
	return b.String()
}

// byBearer reports whether git can send a bearer token, and the server has not asked for anything else alone: GitHub, for one, wants the
// token as a password.
func byBearer(asked attributes) bool {
	isBearer := func(challenge string) bool { return strings.HasPrefix(strings.ToLower(challenge), "bearer") }
	wanted := asked["wwwauth[]"]
	return slices.Contains(asked["capability[]"], "authtype") && (len(wanted) == 0 || slices.ContainsFunc(wanted, isBearer))
}

// erase tells the broker of a token that a server refused. git does not know its generation: it is that of the present token, if that is the
// one that was refused. If it is not, there is a newer one already.
func (j *gitJob) erase(ctx context.Context, c *cli, credential string, asked attributes) error {
	refused := cmp.Or(asked.one("credential"), asked.one("password"))
	if refused == "" {
		return nil
	}
	token, err := j.token(ctx, c, credential)
	if j.session != nil {
		defer j.Close()
	}
	if err != nil {
		return err
	}
	if sha256.Sum256([]byte(refused)) != sha256.Sum256([]byte(token.GetAccessToken())) {
		return nil
	}
	_, err = j.reject(ctx, j.like.request(credential), rejection{generation: token.GetGeneration(), status: 401})
	return err
}
