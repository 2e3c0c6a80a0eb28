package agent

// Metadata says how Google's metadata server is emulated. The zero value is not at all.
type Metadata struct {
	Listen       string // 127.0.0.1:PORT
	Credential   string // whose tokens it gives; required with Listen
	Email        string // of the service account, as SDKs are told; "" = "default"
	Project      string // project id; "" = there is none
	Number       string // numeric project id; "" = there is none
	IgnoreScopes bool   // SDKs ask for the scopes that suit them: give the credential's own all the same, as a machine with fixed scopes does
}
