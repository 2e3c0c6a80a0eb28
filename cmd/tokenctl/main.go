// Command tokenctl is the command-line client of tokenbroker: for people who keep credentials, and for scripts that need a token.
//
//	tokenctl get CREDENTIAL            print an access token
//	tokenctl header CREDENTIAL         print it as an HTTP header, for curl -H @-
//	tokenctl curl CREDENTIAL -- ARGS…  run curl with an access token
//	tokenctl file PATH=CREDENTIAL…     keep access tokens in files
//	tokenctl exec … -- COMMAND…        run a command with access tokens
//	tokenctl git-credential …          give git access tokens, as a credential helper
//	tokenctl report CREDENTIAL         report that an API refused a token, and wait for a newer one
//	tokenctl subscribe CREDENTIAL…     print each change as it comes
//	tokenctl agent                     serve tokens to the jobs of this host
//	tokenctl connect CREDENTIAL        connect an account: a person consents in a browser
//	tokenctl import CREDENTIAL FILE    bring a key file; -f a file of many credentials
//	tokenctl credential …              create, list, describe, check, update, delete, disable, enable, refresh, import, revoke
//	tokenctl client …                  the same for OAuth clients; secret add, secret retire
//	tokenctl consent …                 list, describe, accept, cancel
//	tokenctl provider …                list, show, lint
//	tokenctl policy …                  lint and test a policy file
//	tokenctl audit verify FILE…        check that an audit trail is as the broker wrote it
//	tokenctl explain WORD              what a reason, code, cause or state means
//	tokenctl sandbox …                 an OAuth provider for tests, without a broker: serve, fault, journal, advance and more
//	tokenctl completion, man, version
//
// It speaks to the broker over mTLS, as TOKENBROKER_ADDR, _CA, _CERT, _KEY and _SERVER_NAME say, or the flags of these names.
//
// Promises. Data goes to standard output and everything else to standard error. The exit status says who has to act (see exit.go). A
// secret goes in by standard input, a file or a prompt without echo; no flag takes one. Nothing that came from the broker reaches a
// terminal with control characters in it. No colour, no pager, no file of its own; sandbox serve writes the CA that it makes.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"unicode/utf8"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	c := &cli{in: os.Stdin, out: os.Stdout, errs: os.Stderr}
	status := c.run(ctx, os.Args[1:])
	stop()
	os.Exit(status)
}

// run runs a command line and returns the exit status.
func (c *cli) run(ctx context.Context, args []string) int {
	for i, arg := range args {
		if !utf8.ValidString(arg) {
			return report(ctx, c.errs, usagef("argument %d of the command line is no text in UTF-8", i+1))
		}
	}
	root := c.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !c.started { // cobra itself refused it
		err = usageError(err.Error(), cmd.CommandPath()+" --help")
	}
	return report(ctx, c.errs, err)
}
