package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

const curlLong = `Runs curl with the token in a header. curl reads the header from a pipe, so that the token is on no command line and in no environment.
What curl prints, and its exit status, are handed on. What goes wrong before that ends as anywhere, with a line that begins with "tokenctl:".

If the API refuses the token with 401, the broker is told, and curl runs once more with a newer token, if that comes within --retry-wait; what
the first run printed is not shown then. It runs once only, if
  - what is sent comes from standard input or a pipe;
  - there are several URLs;
  - -D, -C, -J or --no-clobber is given; or -i with -L, or a 401 of more than 1 MiB, where something has been shown by then.
A 403 with insufficient_scope is reported, and the scope that is missing is named; the exit status is 4 where curl's would be 22.

The token goes over https alone, to one server: all URLs have to be of the same. With -L it is left out where a redirect leads to another server.
Options that would show the token, or send it elsewhere, are refused, and all that are not known; ~/.curlrc is not read. Long names are given in
full. curl has to be 7.67.0 or newer, 7.83.0 for -L.`

// curlJob is one tokenctl curl.
type curlJob struct {
	*session
	credential string
	like       variant
	loopback   bool
	wait       time.Duration

	line *curlLine
	args []string // of the user, with ours before them
	dump bool     // whether ours include where the heads go
}

func (c *cli) curlCommand() *cobra.Command {
	j := &curlJob{}
	cmd := &cobra.Command{
		Use: "curl CREDENTIAL [flags] -- CURL-ARGUMENTS…", DisableFlagsInUseLine: true, Short: "Run curl with an access token", Args: some, Long: curlLong,
		ValidArgsFunction: c.credentialNames(1),
		Example: `  tokenctl curl example/reports -- -fsS https://api.example/reports
  tokenctl curl example/reports --scope reports.write -- -fsS --json @report.json https://api.example/reports`,
	}
	cmd.RunE = c.do(func(ctx context.Context, cmd *cobra.Command, args []string) (err error) {
		if j.loopback, err = loopbackHTTP(cmd, j.loopback); err != nil {
			return err
		}
		if j.line, err = parseCurl(args[1:]); err != nil {
			return err
		}
		if err := j.prepare(ctx, args[1:], terminal(c.out)); err != nil {
			return err
		}
		if j.session, err = c.connect(); err != nil {
			return err
		}
		defer j.Close()
		j.credential = args[0]
		return j.run(ctx)
	})
	j.like.add(cmd)
	cmd.Flags().BoolVar(&j.loopback, "loopback-http", false, "allow http to an address of this host that is written as a number ("+loopbackVariable+")")
	cmd.Flags().DurationVar(&j.wait, "retry-wait", 5*time.Second, "how long to wait for a newer token after a 401")
	return cmd
}

const loopbackVariable = "TOKENBROKER_LOOPBACK_HTTP"

// loopbackHTTP is what the flag says, else the variable, which "tokenbrokerd dev" sets for the shell that joins in: its API speaks http.
func loopbackHTTP(cmd *cobra.Command, flag bool) (bool, error) {
	value := os.Getenv(loopbackVariable)
	if value == "" || cmd.Flags().Changed("loopback-http") {
		return flag, nil
	}
	allowed, err := strconv.ParseBool(value)
	if err != nil {
		return false, usagef("%s: give true or false", loopbackVariable)
	}
	return allowed, nil
}

// prepare looks at the URLs and at curl, and sets its arguments.
func (j *curlJob) prepare(ctx context.Context, args []string, screen bool) error {
	plain, err := j.line.plain(j.loopback)
	if err != nil {
		return err
	}
	if err := curlIs(ctx, j.line.follow); err != nil {
		return err
	}
	scheme := "=https"
	j.args = []string{"-q", "-H", "@/dev/fd/3"} // -q first, or ~/.curlrc is read
	if plain {
		scheme = "=http"
		j.args = append(j.args, "--noproxy", "*")
	}
	j.args = append(j.args, "--proto", scheme, "--proto-redir", scheme)
	if j.dump = !j.line.dump; j.dump {
		j.args = append(j.args, "-D", "/dev/fd/4")
	}
	if screen { // as curl does when it writes to a terminal itself
		j.args = append(j.args, "-N")
		if !j.line.files {
			j.args = append(j.args, "--no-progress-meter")
		}
	}
	j.args = append(j.args, args...)
	return nil
}

// curlIs looks for a curl that keeps the token where it belongs.
func curlIs(ctx context.Context, follow bool) error {
	f := &failure{exit: exitFix, action: "install curl 7.83.0 or newer"}
	out, err := exec.CommandContext(ctx, "curl", "-q", "--version").Output()
	if errors.Is(err, exec.ErrNotFound) {
		f.what = "there is no curl in PATH"
		return f
	}
	var v [2]int
	if _, scan := fmt.Sscanf(string(out), "curl %d.%d", &v[0], &v[1]); err != nil || scan != nil {
		f.what = "the curl in PATH does not say its version"
		return f
	}
	switch {
	case slices.Compare(v[:], []int{7, 67}) < 0:
		f.what = "curl is older than 7.67.0"
	case follow && slices.Compare(v[:], []int{7, 83}) < 0:
		f.what = "-L needs curl 7.83.0: an older one sends the token to another port or over http"
	default:
		return nil
	}
	return f
}

// run gets a token and runs curl, once or twice.
func (j *curlJob) run(ctx context.Context) error {
	req := j.like.request(j.credential)
	resp, err := j.handed(ctx, req)
	if err != nil {
		return err
	}
	token := resp.GetToken()
	if err := j.fits(token); err != nil {
		return err
	}
	for again := true; ; again = false {
		run, err := j.once(ctx, token)
		if err != nil {
			return err
		}
		newer, err := j.judge(ctx, req, token, run, again)
		if err != nil || newer == nil {
			return errors.Join(run.flush(), j.outcome(ctx, run, err))
		}
		token = newer
	}
}

// outcome is the end of the command: ours if there is an error, else curl's.
func (j *curlJob) outcome(ctx context.Context, run *curlRun, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if f, ok := errors.AsType[*failure](err); ok && f.exit == exitDenied && run.exit != curlFailed {
		j.note("%s", f.what)
		err = nil
	}
	if err == nil && run.exit != 0 {
		return &childExit{run.exit}
	}
	return err
}

// curlFailed is curl's exit status where -f makes an answer of 400 or more an error.
const curlFailed = 22

// fits refuses what can't be done with a token that has a header of its own.
func (j *curlJob) fits(token *tokenbrokerv1.Token) error {
	name, _, _ := strings.Cut(header(token), ":")
	switch name = strings.ToLower(name); {
	case slices.Contains(j.line.headers, name):
		return usagef("a header of yours is the one that the token goes into")
	case j.line.follow && name != "authorization":
		return usagef("-L is not for a credential with a header of its own: curl would send it to wherever a redirect leads")
	}
	return nil
}

// judge looks at the API's answer. It returns a newer token if curl is to run once more.
func (j *curlJob) judge(ctx context.Context, req *tokenbrokerv1.GetTokenRequest, token *tokenbrokerv1.Token, run *curlRun, again bool) (*tokenbrokerv1.Token, error) {
	r := rejection{token.GetGeneration(), run.heads.refused(), run.heads.code()}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case r.status == 403 && r.code == "insufficient_scope":
		return nil, j.tooLittle(ctx, req, token, r, run.heads)
	case r.status != 401:
		return nil, nil //nolint:nilnil // the token was not refused
	}
	limit := j.wait
	if why := j.line.once; why != "" || run.shown || !again {
		limit = 0
	}
	newer, err := j.renewed(ctx, &j.like, req, r, limit)
	if err != nil {
		j.note("the API refused the token (401), and that could not be reported, or no newer one be had: %v", err)
		return nil, nil //nolint:nilnil // the API's own answer is what the user gets
	}
	switch why := j.line.once; {
	case !again:
		j.note("the API refused a newer token, too (401)")
	case why != "" || run.shown:
		j.note("the API refused the token (401): the broker was told; not run again: %s", cmp.Or(why, "something was shown by then"))
	case newer == nil:
		j.note("the API refused the token (401): the broker was told; no newer one came within %s", j.wait)
	default:
		return newer, nil
	}
	return nil, nil //nolint:nilnil // not run again
}

// tooLittle reports a token whose scopes do not suffice. A newer one would have the same.
func (j *curlJob) tooLittle(ctx context.Context, req *tokenbrokerv1.GetTokenRequest, token *tokenbrokerv1.Token, r rejection, h *heads) error {
	if _, err := j.reject(ctx, req, r); err != nil {
		j.note("the API's answer could not be reported: %v", err)
	}
	f := &failure{exit: exitDenied, what: "the API wants a scope that the token of credential " + j.credential + " does not have",
		action: "ask for it with --scope, or an operator to add it", do: "tokenctl credential describe " + word(j.credential)}
	if missing := h.missing(token.GetScopes()); len(missing) > 0 {
		f.what += ": " + strings.Join(missing, " ")
	}
	return f
}

// heads are for a run whose URLs are all of one server.
func (j *curlJob) heads() *heads {
	first, _ := url.Parse(j.line.urls[0])
	return &heads{first: serverOf(j.line.urls[0]), at: first, follow: j.line.follow}
}
