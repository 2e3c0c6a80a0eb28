package main

import "github.com/spf13/cobra"

func (c *cli) auditCommand() *cobra.Command {
	return c.group("audit", "Check the audit trail", c.auditVerify())
}
