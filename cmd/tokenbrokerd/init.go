package main

import (
	_ "embed"
	"text/template"

	"github.com/spf13/cobra"

	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/starter"
)

//go:embed templates/next.txt
var nextTemplate string

func initCommand() *cobra.Command {
	var f starter.Folder
	cmd := &cobra.Command{
		Use: "init DIR", Short: "Make a development CA, certificates, a key, a config and a policy", Args: cobra.ExactArgs(1),
		Long: `Makes, in DIR, all that "tokenbrokerd serve" needs: a development CA with certificates for the broker (for localhost and loopback),
an operator and a worker, a key encryption key, a config and a policy. Nothing that is there is overwritten.

The CA is for development. In production let your own PKI or SPIRE issue the certificates, and keep the key
encryption key apart from the database and its backups.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.Dir = args[0]
			if err := f.Make(); err != nil {
				return err
			}
			return template.Must(template.New("next").Parse(nextTemplate)).Execute(cmd.OutOrStdout(),
				map[string]any{"Dir": args[0], "Ends": f.Ends, "Env": starter.Quote(f.Path("env"))})
		},
	}
	cmd.Flags().StringVar(&f.TrustDomain, "trust-domain", "tokenbroker.local", "SPIFFE trust domain of the certificates")
	return cmd
}
