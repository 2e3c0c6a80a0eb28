package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

const reportLong = `Tells the broker that an API refused a token, and waits until there is a newer one: for a job that has its token from tokenctl get or
header, from a file or from an agent's socket. tokenctl curl, git-credential and the libraries do it themselves.

The exit status is 0 if there is a newer token than the one that was refused: get it anew, and try once more. It is 6 if none came within --wait.
However many jobs call it at once, the broker gets one newer token for all, and for a token that came just now it waits before it gets another;
"again" says how long.

Which token was refused:

  --token-stdin      the one on standard input. The best way: the job gives what it sent, whatever has come since
  --token-file FILE  the one in a file that tokenctl file or tokenctl exec keeps. It is 0 once the file holds another one. With --token-stdin as
                     well, that says which was refused, and the file is waited for
  --generation N     the one of that generation
  none of these      the present one. If several jobs share a credential that may be one that another job's report has brought

A token may be there alone, as one header line, or as JSON of tokenctl file, of tokenctl get, or of an agent. If it is not the present one, there is a newer one already.

Another --status than 401 is counted, and nothing is waited for, as a newer token would not help: the exit status is 4 for 403, 6 for 429 and from
500 on, else 7.`

// reportJob is one tokenctl report.
type reportJob struct {
	*session
	like       variant
	stdin      bool
	file       string // that tokenctl keeps
	generation uint64
	status     int
	code       string
	wait       time.Duration
}

func (c *cli) reportCommand() *cobra.Command {
	j := &reportJob{}
	cmd := &cobra.Command{
		Use: "report CREDENTIAL", Short: "Report that an API refused a token, and wait for a newer one", Long: reportLong,
		Args: takes("CREDENTIAL"), ValidArgsFunction: c.credentialNames(1),
		Example: `  header=$(tokenctl header example/reports)
  code=$(printf %s "$header" | curl -sS -H @- -o today.json -w '%{http_code}' https://api.example/reports)
  [ "$code" = 401 ] && printf %s "$header" | tokenctl report example/reports --token-stdin && header=$(tokenctl header example/reports)`,
	}
	cmd.RunE = c.do(func(ctx context.Context, cmd *cobra.Command, args []string) error {
		if err := j.check(cmd); err != nil {
			return err
		}
		refused, err := j.which(ctx, c)
		if err != nil {
			return err
		}
		if j.session, err = c.connect(); err != nil {
			return err
		}
		defer j.Close()
		return j.run(ctx, j.like.request(args[0]), refused)
	})
	j.like.addSelection(cmd)
	f := cmd.Flags()
	f.BoolVar(&j.stdin, "token-stdin", false, "read the token that was refused from standard input")
	f.StringVar(&j.file, "token-file", "", "the `file` that tokenctl keeps the token in; wait until it holds a newer one")
	f.Uint64Var(&j.generation, "generation", 0, "the generation that was refused")
	f.IntVar(&j.status, "status", unauthorized, "the API's HTTP status")
	f.StringVar(&j.code, "error-code", "", "the error of the API's WWW-Authenticate, e.g. invalid_token")
	f.DurationVar(&j.wait, "wait", 5*time.Second, "how long to wait for a newer token")
	complete(cmd, "error-code", "invalid_token", "insufficient_scope", "invalid_request")
	return cmd
}

// unauthorized is the one status that a newer token may help with.
const unauthorized = 401

func (j *reportJob) check(cmd *cobra.Command) error {
	switch {
	case j.status < 400 || j.status > 599:
		return usagef("--status: give the API's status, from 400 to 599")
	case cmd.Flags().Changed("generation") && j.generation == 0:
		return usagef("--generation: no token has the generation 0")
	case j.generation > 0 && j.stdin:
		return usagef("give --generation or --token-stdin, not both")
	case j.generation > 0 && j.file != "":
		return usagef("give --generation or --token-file, not both")
	}
	return nil
}

// which reads what says which token was refused.
func (j *reportJob) which(ctx context.Context, c *cli) (refusedToken, error) {
	from := secretFlags{name: "token", stdin: j.stdin}
	if !j.stdin {
		from.file = j.file
	}
	if !from.given() {
		return refusedToken{generation: j.generation}, nil
	}
	text, err := from.read(ctx, c)
	if err != nil {
		return refusedToken{}, err
	}
	return refusedIn(text.Reveal())
}

// run tells the broker. It goes well if there is a newer token where the job looks for one.
func (j *reportJob) run(ctx context.Context, req *tokenbrokerv1.GetTokenRequest, refused refusedToken) error {
	end := time.Now().Add(j.wait)
	r := rejection{refused.generation, j.status, j.code}
	newer := false
	var err error
	if r.generation == 0 {
		if r.generation, newer, err = j.present(ctx, req, refused.bare); err != nil {
			return err
		}
	}
	if !newer {
		if err := j.tell(ctx, req, r); err != nil {
			return err
		}
	}
	if j.file == "" {
		return nil
	}
	return j.replaced(ctx, req.GetCredential(), refused, end)
}

// present asks for the present token: its generation, and whether it is another one than was refused. Without one it is taken for that.
func (j *reportJob) present(ctx context.Context, req *tokenbrokerv1.GetTokenRequest, refused string) (generation uint64, another bool, err error) {
	resp, err := call(ctx, j.session, j.tokens.GetToken, req)
	if err != nil {
		return 0, false, err
	}
	return resp.GetToken().GetGeneration(), refused != "" && refused != bare(resp.GetToken().GetAccessToken()), nil
}

// tell reports, and waits for a newer token. The broker may have forgotten who was handed a generation, by a restart: asking for the present
// one brings that back, or shows that there is a newer one.
func (j *reportJob) tell(ctx context.Context, req *tokenbrokerv1.GetTokenRequest, r rejection) error {
	resp, newer, err := j.superseded(ctx, &j.like, req, r, j.wait)
	if f, ok := errors.AsType[*failure](err); ok && f.reason == "GENERATION_NOT_HANDED" {
		generation, _, asked := j.present(ctx, req, "")
		switch {
		case asked != nil:
			return asked
		case generation > r.generation:
			return nil
		case generation == r.generation:
			resp, newer, err = j.superseded(ctx, &j.like, req, r, j.wait)
		}
	}
	if err != nil || newer {
		return err
	}
	return j.unhelped(req.GetCredential(), r, resp.GetRetryDelay().AsDuration())
}

// unhelped is that there is no newer token, and who has to act.
func (j *reportJob) unhelped(credential string, r rejection, again time.Duration) *failure {
	what := fmt.Sprintf("credential %s: the broker was told of the API's %d; ", credential, r.status)
	f := &failure{exit: exitFix, what: what + "a newer token would not help", action: "correct the request to the API"}
	switch {
	case r.status == unauthorized:
		f.exit, f.what, f.again = exitLater, what+"no newer token came within "+j.wait.String(), again
		f.action = "try again later: a token that came just now is not replaced at once"
	case r.status == 403:
		f.exit, f.action, f.do = exitDenied, "ask for the scope that the API wants with --scope, or an operator to add it", "an operator: tokenctl credential describe "+word(credential)
	case r.status == 429 || r.status >= 500:
		f.exit, f.action = exitLater, "wait, and call the API again"
	}
	return f
}

const lookAgain = 50 * time.Millisecond // at a file that somebody else writes

// replaced waits until the file holds another token than the one that was refused.
func (j *reportJob) replaced(ctx context.Context, credential string, refused refusedToken, end time.Time) error {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		if text, err := readFile("token-file", j.file); err == nil {
			if now, err := refusedIn(string(text)); err == nil && now.bare != refused.bare {
				return nil
			}
		}
		if !time.Now().Before(end) {
			return &failure{exit: exitLater, what: "credential " + credential + ": there is a newer token, and the file still holds the one that was refused",
				action: "have tokenctl file or tokenctl exec keep the file; give what is in a file that nobody keeps by --token-stdin, and write it anew"}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
