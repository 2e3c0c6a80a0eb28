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
}{
	{exitOK, "done"},
	{exitOther, "another error, such as a fault of the broker"},
	{exitUsage, "the command line or what was asked is malformed"},
	{exitNotFound, "no such credential or OAuth client, or it is not for you"},
	{exitDenied, "denied by the policy, or your certificate is not accepted"},
	{exitReauthorize, "the grant is dead: a person has to consent again or bring a new refresh token"},
	{exitLater, "not now: the broker or the provider can't be reached, is busy or slow; try again later"},
	{exitFix, "fix the configuration: of the credential, the OAuth client, the request or this client"},
	{exitConflict, "conflict: it exists already, or somebody else changed it"},
	{exitInterrupted, "interrupted"},
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
	exit int
	do   string // a command; {name} and {noun} stand for what the request was about; "" = none helps
}

// remedies has a row for each reason of the broker; docs/errors.md is their list.
var remedies = map[string]remedy{
	"FIELD_VIOLATION":           {exitUsage, ""},
	"UNKNOWN_PROVIDER":          {exitUsage, ""},
	"CREDENTIAL_NOT_FOUND":      {exitNotFound, "tokenctl credential list"},
	"OAUTH_CLIENT_NOT_FOUND":    {exitNotFound, "tokenctl client list"},
	"ALREADY_EXISTS":            {exitConflict, "tokenctl {noun} describe {name}"},
	"ETAG_MISMATCH":             {exitConflict, "tokenctl {noun} describe {name}"},
	"IN_USE":                    {exitFix, "tokenctl credential list --client {name}"},
	"CALLER_NOT_ALLOWED":        {exitDenied, ""},
	"SCOPE_NOT_ALLOWED":         {exitDenied, "tokenctl credential describe {name}"},
	"GRANT_NOT_SUPPORTED":       {exitFix, "tokenctl {noun} describe {name}"},
	"REAUTHORIZATION_REQUIRED":  {exitReauthorize, "tokenctl credential import {name} --refresh-token-stdin"},
	"CREDENTIAL_MISCONFIGURED":  {exitFix, "tokenctl credential describe {name}"},
	"CREDENTIAL_DISABLED":       {exitFix, "tokenctl credential enable {name}"},
	"CREDENTIAL_QUARANTINED":    {exitFix, "tokenctl credential describe {name}"},
	"MIN_VALIDITY_UNATTAINABLE": {exitFix, "tokenctl get {name} --min-validity DURATION"},
	"GENERATION_NOT_HANDED":     {exitFix, "tokenctl get {name}"},
	"AUDIT_UNAVAILABLE":         {exitLater, ""},
	"STORE_UNAVAILABLE":         {exitLater, ""},
	"SHUTTING_DOWN":             {exitLater, ""},
	"CREDENTIAL_UNCERTAIN":      {exitLater, "tokenctl credential describe {name}"},
	"REFRESH_IN_BACKOFF":        {exitLater, "tokenctl credential describe {name}"},
	"UPSTREAM_UNAVAILABLE":      {exitLater, "tokenctl credential describe {name}"},
	"UPSTREAM_RATE_LIMITED":     {exitLater, "tokenctl credential describe {name}"},
	"TOO_MANY":                  {exitLater, ""},
	"SLOW_READER":               {exitLater, ""},
	"NO_CLIENT_CERTIFICATE":     {exitDenied, ""},
	"CERTIFICATE_EXPIRED":       {exitDenied, ""},
	"UNKNOWN_METHOD":            {exitOther, "tokenctl version"},
	"DEADLINE_EXCEEDED":         {exitLater, ""},
	"CANCELED":                  {exitOther, ""},
	"TRANSPORT":                 {exitOther, ""},
	"INTERNAL":                  {exitOther, ""},
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
