package main

import (
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
)

// What the exit status says: who has to act.
const (
	exitOK          = 0
	exitOther       = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitDenied      = 4
	exitReauthorize = 5
	exitLater       = 6
	exitFix         = 7
	exitConflict    = 8
	exitInterrupted = 130
)

// exits lists them for people.
var exits = []struct {
	status int
	means  string
	do     string
}{
	{exitOK, "done", "Nothing."},
	{exitOther, "another error, such as a fault of the broker", "Read the error: it says what it is. Of a fault of the broker its log says more."},
	{exitUsage, "the command line or what was asked is malformed", "Correct what the error names; --help of the command shows how it is meant."},
	{exitNotFound, "no such credential, OAuth client, consent or provider, or it is not for you", "Check the name; or have an operator give your identity a rule. The two answer alike, so that names can not be guessed."},
	{exitDenied, "denied by the policy, or your certificate is not accepted", "Have an operator give your identity a rule, or get a certificate that the broker takes: the error says which."},
	{exitReauthorize, "the grant is dead: a person has to consent again or bring a new refresh token", "Have an operator run the command that the error names: a consent anew, or a new secret, by what the credential lives on."},
	{exitLater, "not now: the broker or the provider can't be reached, is busy or slow; try again later",
		"Run it again later, after the time that the error names if it does. If it stays: see that the broker runs and that you have its address, and what the broker says of the provider."},
	{exitFix, "fix the configuration: of the credential, the OAuth client, the request or this client", "Correct what the error names: it would be the same if it were run again."},
	{exitConflict, "conflict: it exists already, or somebody else changed it", "Look at what is there now, then decide anew."},
	{exitInterrupted, "interrupted", "Nothing: Ctrl-C or a signal ended it. What was begun goes on in the broker."},
}

func exitHelp() string {
	var b strings.Builder
	for _, e := range exits {
		fmt.Fprintf(&b, "  %-4d %s\n", e.status, e.means)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// remedy is what an error's reason means for the one at the keyboard.
type remedy struct {
	exit   int
	action string // what has to happen; "" = what the broker's recovery action says
	do     string // a command; {name} and {noun} stand for what the request was about; "" = none helps
}

const credentialDescribe = "tokenctl credential describe {name}"

// remedies has a row for each reason of the broker; docs/errors.md is their list.
var remedies = map[string]remedy{
	"FIELD_VIOLATION":           {exitUsage, "correct the command line, or the file", ""},
	"UNKNOWN_PROVIDER":          {exitNotFound, "correct the name, or add the provider to the broker's configuration", "tokenctl provider list"},
	"CREDENTIAL_NOT_FOUND":      {exitNotFound, "check the name; or an operator has to give this identity a rule", "tokenctl credential list"},
	"OAUTH_CLIENT_NOT_FOUND":    {exitNotFound, "check the name; or an operator has to give this identity a rule", "tokenctl client list"},
	"CONSENT_NOT_FOUND":         {exitNotFound, "check the id; only the identity that began a consent completes it", "tokenctl consent list"},
	"CONSENT_NOT_OFFERED":       {exitFix, "configure the broker's consent listener, or consent another way", ""},
	"CONSENT_ENDED":             {exitFix, "begin another one", ""},
	"ACCOUNT_MISMATCH":          {exitFix, "see which account it is; another one takes its place with --reauthorize, --expect-account and --replace-account", "tokenctl {noun} describe {name}"},
	"SCOPE_NOT_GRANTED":         {exitReauthorize, "a person has to consent again and grant the scope; or ask for less", credentialDescribe},
	"GRANTED_SCOPES_TOO_WIDE":   {exitFix, "narrow the grant at the provider, widen the rule, add a scope alias to the profile, or let extra scopes pass", credentialDescribe},
	"ALREADY_EXISTS":            {exitConflict, "choose another name, or update what is there", "tokenctl {noun} describe {name}"},
	"ETAG_MISMATCH":             {exitConflict, "read it again: somebody else changed it", "tokenctl {noun} describe {name}"},
	"IN_USE":                    {exitFix, "move the credentials to another OAuth client, or delete them", "tokenctl credential list --client {name}"},
	"CALLER_NOT_ALLOWED":        {exitDenied, "an operator has to give this identity a rule", ""},
	"SCOPE_NOT_ALLOWED":         {exitDenied, "ask for less, or an operator for more", credentialDescribe},
	"GRANT_NOT_SUPPORTED":       {exitFix, "", "tokenctl {noun} describe {name}"},
	"REAUTHORIZATION_REQUIRED":  {exitReauthorize, "", credentialDescribe},
	"CREDENTIAL_MISCONFIGURED":  {exitFix, "correct the credential or its OAuth client; it is tried again at once", credentialDescribe},
	"CREDENTIAL_DISABLED":       {exitFix, "an operator switched it off, and can switch it on", "tokenctl credential enable {name}"},
	"CREDENTIAL_QUARANTINED":    {exitFix, "an operator has to restore the store, or delete it and create it anew", credentialDescribe},
	"MIN_VALIDITY_UNATTAINABLE": {exitFix, "ask for less", "tokenctl get {name} -o table"},
	"GENERATION_NOT_HANDED":     {exitFix, "get the token first", "tokenctl get {name}"},
	"AUDIT_UNAVAILABLE":         {exitLater, "an operator has to look at the disk of the broker's audit log", ""},
	"STORE_UNAVAILABLE":         {exitLater, "an operator has to look at the broker's disk", ""},
	"SHUTTING_DOWN":             {exitLater, "", ""},
	"CREDENTIAL_UNCERTAIN":      {exitLater, "", credentialDescribe},
	"REFRESH_IN_BACKOFF":        {exitLater, "", credentialDescribe},
	"UPSTREAM_UNAVAILABLE":      {exitLater, "", credentialDescribe},
	"UPSTREAM_RATE_LIMITED":     {exitLater, "", credentialDescribe},
	"TOO_MANY":                  {exitLater, "wait, and ask less often", ""},
	"SLOW_READER":               {exitLater, "read faster", ""},
	"NO_CLIENT_CERTIFICATE":     {exitDenied, "show a certificate: --cert and --key", ""},
	"CERTIFICATE_EXPIRED":       {exitDenied, "renew the certificate", ""},
	"CERTIFICATE_DENIED":        {exitDenied, "get a new certificate, with a new key", ""},
	"CERTIFICATE_UNTRUSTED":     {exitDenied, "get a certificate of the broker's present CA", ""},
	"UNKNOWN_METHOD":            {exitFix, "compare the versions of tokenctl and the broker, and see that the address is the one for operators", "tokenctl version"},
	"DEADLINE_EXCEEDED":         {exitLater, "ask again: what was begun goes on in the broker; --timeout allows more time", ""},
	"CANCELED":                  {exitOther, "ask again", ""},
	"TRANSPORT":                 {exitOther, "", ""},
	"INTERNAL":                  {exitOther, "report it: it is a fault of the broker, and its log says more", ""},
}

// ofAgents are the rows of errors that an agent made itself: who has to act is on its host, and the broker's commands do not help there.
var ofAgents = map[string]remedy{
	"CREDENTIAL_NOT_FOUND": {exitNotFound, "check the name; or whoever runs the agent on this host has to give this user a rule for it in agent.yaml", ""},
	"AUDIT_UNAVAILABLE":    {exitLater, "whoever runs the agent on this host has to look at the disk of the agent's audit log; the agent's log says more", ""},
	"CERTIFICATE_EXPIRED":  {exitDenied, "whoever runs the agent on this host has to renew its certificate", ""},
	"INTERNAL":             {exitOther, "report it: it is a fault of the agent, and its log says more", ""},
}

// lastSecret is IN_USE where a secret was to be retired.
var lastSecret = remedy{exitFix, "add the new secret first", "tokenctl client secret add {name} --secret-stdin"}

// noSecret is OAUTH_CLIENT_NOT_FOUND where a secret was to be retired.
var noSecret = remedy{exitNotFound, "check the name and the id", "tokenctl client describe {name}"}

// revivals are REAUTHORIZATION_REQUIRED by grant: each has one way out. Of one that is not known, both are told.
var revivals = map[string]remedy{
	"authorization_code": {exitReauthorize, "a person has to consent again", "tokenctl connect {name} --reauthorize"},
	"device_code":        {exitReauthorize, "a person has to consent again", "tokenctl connect {name} --device --reauthorize"},
	"refresh_token":      {exitReauthorize, "bring a new refresh token", "tokenctl credential import {name} --refresh-token-stdin"},
	"static":             {exitReauthorize, "bring a new token or API key", "tokenctl credential import {name} --static-token-stdin"},
	"password":           {exitReauthorize, "bring the password that holds now", "tokenctl credential import {name} --password-stdin"},
	"token_exchange":     {exitReauthorize, "bring a new subject token", "tokenctl credential import {name} --subject-token-stdin"},
}

// remedyOf finds the row of a reason. grant is the credential's, where the error names it.
func remedyOf(reason string, code codes.Code, t target, grant string) remedy {
	r, known := remedies[reason]
	switch {
	case reason == "SCOPE_NOT_GRANTED" && strings.HasPrefix(revivals[grant].do, "tokenctl connect "):
		r.do = revivals[grant].do
	case reason == "REAUTHORIZATION_REQUIRED" && revivals[grant].do != "":
		return revivals[grant]
	case !known:
		r.exit = exitOf(code)
	case reason == "TRANSPORT": // gRPC itself, which has codes only
		if r.exit = exitOf(code); code == codes.Unavailable { // and agents, of their broker
			r.action = "check that the broker runs, and the address that the agent has of it; the agent's log says more"
		}
	case reason == "IN_USE" && t.secret:
		return lastSecret
	case reason == "OAUTH_CLIENT_NOT_FOUND" && t.secret:
		return noSecret
	}
	return r
}

// exitOf is for a status whose reason this version does not know, and for one that gRPC itself made.
func exitOf(code codes.Code) int {
	switch code {
	case codes.OK:
		return exitOK
	case codes.InvalidArgument, codes.OutOfRange:
		return exitUsage
	case codes.NotFound:
		return exitNotFound
	case codes.PermissionDenied, codes.Unauthenticated:
		return exitDenied
	case codes.Unavailable, codes.ResourceExhausted, codes.DeadlineExceeded:
		return exitLater
	case codes.FailedPrecondition:
		return exitFix
	case codes.AlreadyExists, codes.Aborted:
		return exitConflict
	case codes.Canceled, codes.Unknown, codes.Unimplemented, codes.Internal, codes.DataLoss:
	}
	return exitOther
}

// recoveries are the broker's recovery actions in words.
var recoveries = map[string]string{
	"NONE":              "nothing",
	"RETRY":             "wait and try again; the broker goes on trying by itself",
	"REAUTHORIZE":       "a person has to consent again, or bring a new refresh token",
	"FIX_CONFIGURATION": "correct the credential, the OAuth client or the request",
	"ASK_OPERATOR":      "an operator has to act",
}
