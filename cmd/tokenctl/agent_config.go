package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/agent"
	"github.com/tokenbroker/tokenbroker/policy"
)

// maxAgentConfig bounds what is read of a config file.
const maxAgentConfig = 1 << 20

// maxCallsPerUser is more than an agent answers: a number above is a mistake.
const maxCallsPerUser = 1_000_000

// agentFile is the config file of an agent. docs/agent.md describes it.
type agentFile struct {
	Version      int         `yaml:"version"`
	Socket       string      `yaml:"socket"`
	AuditFile    string      `yaml:"audit_file"`
	Audit        agentAudit  `yaml:"audit"`
	HTTP         agentHTTP   `yaml:"http"`
	Metadata     agentGoogle `yaml:"metadata"`
	Unidentified string      `yaml:"unidentified_callers"`
	PerUser      *int        `yaml:"tokens_per_user"`
	CallsPerUser *int        `yaml:"calls_per_user"`
	Rules        []agentRule `yaml:"rules"`
}

type agentAudit struct {
	Checkpoint    string `yaml:"checkpoint_file"`
	CheckpointKey string `yaml:"checkpoint_key_file"`
}

type agentHTTP struct {
	Listen     string `yaml:"listen"`
	BearerFile string `yaml:"bearer_file"`
}

type agentGoogle struct {
	Listen       string `yaml:"listen"`
	Credential   string `yaml:"credential"`
	Email        string `yaml:"email"`
	Project      string `yaml:"project_id"`
	Number       string `yaml:"numeric_project_id"`
	IgnoreScopes bool   `yaml:"ignore_scopes"`
}

type agentRule struct {
	Name        string   `yaml:"name"`
	Users       []any    `yaml:"users"`
	Groups      []any    `yaml:"groups"`
	Credentials []string `yaml:"credentials"`
}

// agentSettings are what flags set in place of the file.
type agentSettings struct {
	config, socket, audit string
	http, bearer          string
	metadata, metadataFor string
}

func (s *agentSettings) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.config, "config", "", "config `file`: who may have what (default: the agent's own user, everything)")
	f.StringVar(&s.socket, "socket", "", "`path` of the socket (default $XDG_RUNTIME_DIR/tokenbroker/agent.sock, for root /run/tokenbroker/agent.sock)")
	f.StringVar(&s.http, "http", "", "serve HTTP on a loopback `address` too, as 127.0.0.1:8173")
	f.StringVar(&s.bearer, "bearer-file", "", "`file` for the secret that callers of --http show; made at the start, gone at the end")
	f.StringVar(&s.metadata, "metadata", "", "emulate Google's metadata server on a loopback `address`, as 127.0.0.1:8174")
	f.StringVar(&s.metadataFor, "metadata-credential", "", "the `credential` whose tokens the metadata server gives")
	f.StringVar(&s.audit, "audit", "", "`file` of the agent's audit trail (default $XDG_STATE_HOME/tokenbroker/agent-audit.jsonl, for root /var/log/tokenbroker/agent-audit.jsonl)")
}

// load reads the config file and lays the flags over it. Relative paths in the file are relative to its folder.
func (s *agentSettings) load() (agent.Config, error) {
	f := agentFile{Version: 1}
	if s.config != "" {
		var err error
		if f, err = readAgentFile(s.config); err != nil {
			return agent.Config{}, err
		}
	}
	in := func(p string) string {
		if p == "" || filepath.IsAbs(p) {
			return p
		}
		return filepath.Join(filepath.Dir(s.config), p)
	}
	cfg := agent.Config{
		Socket: cmp.Or(s.socket, in(f.Socket)), AuditFile: cmp.Or(s.audit, in(f.AuditFile)),
		Checkpoints: agent.Checkpoints{KeyFile: in(f.Audit.CheckpointKey), File: in(f.Audit.Checkpoint)},
		HTTP:        cmp.Or(s.http, f.HTTP.Listen), BearerFile: cmp.Or(s.bearer, in(f.HTTP.BearerFile)),
		Metadata: agent.Metadata{Listen: cmp.Or(s.metadata, f.Metadata.Listen), Credential: cmp.Or(s.metadataFor, f.Metadata.Credential),
			Email: f.Metadata.Email, Project: f.Metadata.Project, Number: f.Metadata.Number, IgnoreScopes: f.Metadata.IgnoreScopes},
		UnidentifiedAsOwn: f.Unidentified == "as_own_user",
	}
	if f.PerUser != nil {
		cfg.TokensPerUser = *f.PerUser
	}
	if f.CallsPerUser != nil {
		cfg.CallsPerUser = *f.CallsPerUser
	}
	rules, err := agentRules(f.Rules)
	if err != nil {
		return cfg, badAgentFile(s.config, "rules: "+err.Error(), err)
	}
	cfg.Rules = rules
	if err := fillPaths(&cfg); err != nil {
		return cfg, err
	}
	cfg.Socket, err = filepath.Abs(cfg.Socket) // jobs are told of it, and they run elsewhere
	return cfg, err
}

// readAgentFile reads a config file strictly.
func readAgentFile(path string) (f agentFile, err error) {
	in, err := os.Open(path)
	if err != nil {
		return f, badAgentFile(path, err.Error(), err)
	}
	defer in.Close()
	data, err := io.ReadAll(io.LimitReader(in, maxAgentConfig+1))
	if err != nil {
		return f, badAgentFile(path, err.Error(), err)
	}
	if len(data) > maxAgentConfig {
		return f, badAgentFile(path, fmt.Sprintf("has more than %d bytes", maxAgentConfig), nil)
	}
	if err := yaml.NewDecoder(bytes.NewReader(data), yaml.DisallowUnknownField()).Decode(&f); err != nil {
		return f, badAgentFile(path, yaml.FormatError(err, false, false), err)
	}
	switch {
	case f.Version != 1:
		return f, badAgentFile(path, `write "version: 1"`, nil)
	case f.Rules != nil && len(f.Rules) == 0:
		return f, badAgentFile(path, "rules is an empty list, which would let nobody ask; leave it out for the agent's own user", nil)
	case f.Unidentified != "" && f.Unidentified != "refuse" && f.Unidentified != "as_own_user":
		return f, badAgentFile(path, "unidentified_callers: give refuse or as_own_user", nil)
	case f.PerUser != nil && *f.PerUser <= 0:
		return f, badAgentFile(path, "tokens_per_user: give a number above 0, or leave it out for 512", nil)
	case f.CallsPerUser != nil && (*f.CallsPerUser <= 0 || *f.CallsPerUser > maxCallsPerUser):
		return f, badAgentFile(path, fmt.Sprintf("calls_per_user: give a number from 1 to %d, or leave it out for 500", maxCallsPerUser), nil)
	}
	return f, nil
}

// badAgentFile is an error of whoever wrote the config file, in which what names the key.
func badAgentFile(path, what string, err error) error {
	return &failure{exit: exitFix, what: "the agent's config " + path + ": " + what, err: err}
}

// refused is why an agent can't be opened: for a mistake of the command line it names the flag, for one of the config file the key.
func (s *agentSettings) refused(cfg agent.Config, err error) error {
	p, ok := errors.AsType[*tokenbroker.Problem](err)
	if !ok || p.Field == "" {
		return &failure{exit: exitFix, what: strings.TrimPrefix(err.Error(), "agent: "), err: err}
	}
	for field, at := range map[string]struct {
		flag, key string
		byFlag    bool // what is missing belongs where the port is set
	}{
		"HTTP":                {"--http", "http.listen", s.http != ""},
		"BearerFile":          {"--bearer-file", "http.bearer_file", s.http != ""},
		"Metadata.Listen":     {"--metadata", "metadata.listen", s.metadata != ""},
		"Metadata.Credential": {"--metadata-credential", "metadata.credential", s.metadataFor != "" || s.metadata != "" && cfg.Metadata.Credential == ""},
		"Metadata.Email":      {"", "metadata.email", false},
		"Rules":               {"", "rules", false},
	} {
		switch {
		case field != p.Field:
		case at.byFlag:
			return &failure{exit: exitUsage, what: at.flag + ": " + p.Detail, err: err}
		default:
			return badAgentFile(s.config, at.key+": "+p.Detail, err)
		}
	}
	return badAgentFile(s.config, p.Detail, err) // which names the key
}

// agentRules resolves the names of users and groups. One that is missing is an error: a rule for nobody is a mistake.
func agentRules(list []agentRule) ([]agent.Rule, error) {
	var rules []agent.Rule
	var errs []error
	for i, r := range list {
		rule := agent.Rule{Name: cmp.Or(r.Name, fmt.Sprintf("rule-%d", i+1))}
		note := func(err error) {
			if err != nil {
				errs = append(errs, fmt.Errorf("rule %q: %w", rule.Name, err))
			}
		}
		for _, u := range r.Users {
			id, err := idOf(u, userID)
			note(err)
			rule.UIDs = append(rule.UIDs, id)
		}
		for _, g := range r.Groups {
			id, err := idOf(g, groupID)
			note(err)
			rule.GIDs = append(rule.GIDs, id)
		}
		for _, text := range r.Credentials {
			p, err := credentialPattern(text)
			note(err)
			rule.Credentials = append(rule.Credentials, p)
		}
		rules = append(rules, rule)
	}
	return rules, errors.Join(errs...)
}

// credentialPattern reads a pattern of names of credentials.
func credentialPattern(text string) (policy.Pattern, error) {
	if strings.Trim(text, "abcdefghijklmnopqrstuvwxyz0123456789._-/*") != "" {
		return policy.Pattern{}, fmt.Errorf("credentials: %q has characters that no name of a credential has", text)
	}
	return policy.ParsePattern(text)
}

// idOf is the number of a user or group, which is given by number or by name.
func idOf(v any, find func(name string) (string, error)) (uint32, error) {
	text := fmt.Sprint(v)
	if _, isText := v.(string); isText {
		found, err := find(text)
		if err != nil {
			return 0, err
		}
		text = found
	}
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil || id == 1<<32-1 {
		return 0, fmt.Errorf("%q is no user or group: give a name or a number", fmt.Sprint(v))
	}
	return uint32(id), nil
}

func userID(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", fmt.Errorf("users: there is no user %q on this host", name)
	}
	return u.Uid, nil
}

func groupID(name string) (string, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", fmt.Errorf("groups: there is no group %q on this host", name)
	}
	return g.Gid, nil
}

// fillPaths sets the paths that nobody gave. The trail does not lie beside the socket: what is there is gone with the next boot.
func fillPaths(cfg *agent.Config) error {
	root := os.Geteuid() == 0
	if cfg.Socket == "" {
		switch run := os.Getenv("XDG_RUNTIME_DIR"); {
		case run != "":
			cfg.Socket = filepath.Join(run, "tokenbroker", "agent.sock")
		case root:
			cfg.Socket = "/run/tokenbroker/agent.sock"
		default:
			return usagef("XDG_RUNTIME_DIR is not set: say with --socket where the socket is to be")
		}
	}
	if cfg.AuditFile != "" {
		return nil
	}
	folder := "/var/log/tokenbroker"
	if state, home := os.Getenv("XDG_STATE_HOME"), os.Getenv("HOME"); !root {
		if state == "" && home == "" {
			return usagef("neither XDG_STATE_HOME nor HOME is set: say with --audit where the audit trail is to go")
		}
		folder = filepath.Join(cmp.Or(state, filepath.Join(home, ".local", "state")), "tokenbroker")
	}
	cfg.AuditFile = filepath.Join(folder, "agent-audit.jsonl")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return &failure{exit: exitFix, what: "the folder of the audit trail: " + err.Error() + "; --audit FILE puts it elsewhere", err: err}
	}
	return nil
}

// sameButRules says what of a config can't be taken up without a restart.
func sameButRules(running, now agent.Config) error {
	var changed []string
	for name, same := range map[string]bool{
		"socket": running.Socket == now.Socket, "audit_file": running.AuditFile == now.AuditFile, "audit": running.Checkpoints == now.Checkpoints, "metadata": running.Metadata == now.Metadata,
		"http":                 running.HTTP == now.HTTP && running.BearerFile == now.BearerFile,
		"unidentified_callers": running.UnidentifiedAsOwn == now.UnidentifiedAsOwn, "tokens_per_user": running.TokensPerUser == now.TokensPerUser,
		"calls_per_user": running.CallsPerUser == now.CallsPerUser,
	} {
		if !same {
			changed = append(changed, name)
		}
	}
	if len(changed) > 0 {
		return fmt.Errorf("restart the agent for another %s", strings.Join(changed, ", "))
	}
	return nil
}
