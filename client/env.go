package client

import (
	"fmt"
	"os"
	"strings"

	"github.com/tokenbroker/tokenbroker/mtls"
)

// NewFromEnv is New with ConfigFromEnv; what is missing there is an error that says what to set.
func NewFromEnv() (*Client, error) {
	cfg := ConfigFromEnv()
	if err := complete(cfg); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	return New(cfg)
}

// ConfigFromEnv is what the environment says: TOKENBROKER_ADDR, which is Config.Addr; TOKENBROKER_CA, TOKENBROKER_CERT and TOKENBROKER_KEY,
// which are files; and TOKENBROKER_SERVER_NAME if the broker's certificate does not hold the address's host. TOKENBROKER_WORKLOAD_API stands
// in for the files, and if there is none of these, SPIFFE_ENDPOINT_SOCKET does. An agent's socket needs its address alone. What is not
// set stays empty.
func ConfigFromEnv() Config {
	cfg := Config{Addr: os.Getenv("TOKENBROKER_ADDR"), Server: os.Getenv("TOKENBROKER_SERVER_NAME"), Workload: os.Getenv("TOKENBROKER_WORKLOAD_API"),
		Files: mtls.Files{CA: os.Getenv("TOKENBROKER_CA"), Cert: os.Getenv("TOKENBROKER_CERT"), Key: os.Getenv("TOKENBROKER_KEY")}}
	if f := cfg.Files; cfg.Workload == "" && f.CA == "" && f.Cert == "" && f.Key == "" {
		cfg.Workload = os.Getenv("SPIFFE_ENDPOINT_SOCKET")
	}
	return cfg
}

// complete says which variables are missing, and what they are.
func complete(cfg Config) error {
	var missing, hints []string
	if cfg.Addr == "" {
		missing = append(missing, "TOKENBROKER_ADDR")
		hints = append(hints, "the address is the broker's host:port, several with commas between, or unix:///path of an agent, which needs no more")
	}
	if _, err := parseTarget(cfg.Addr); cfg.Addr != "" && err != nil {
		return err
	}
	if cfg.Workload == "" && !isSocket(cfg.Addr) {
		n := len(missing)
		for _, v := range []struct{ name, value string }{{"CA", cfg.Files.CA}, {"CERT", cfg.Files.Cert}, {"KEY", cfg.Files.Key}} {
			if v.value == "" {
				missing = append(missing, "TOKENBROKER_"+v.name)
			}
		}
		if len(missing) > n {
			hints = append(hints, "CERT and KEY are this worker's certificate and its key, CA is the file that vouches for the broker, all as an operator "+
				"issued them; where SPIFFE gives them set TOKENBROKER_WORKLOAD_API instead")
		}
	}
	if missing == nil {
		return nil
	}
	return fmt.Errorf("set %s: %s", strings.Join(missing, ", "), strings.Join(hints, "; "))
}
