package server

import (
	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// need is what a method asks of its caller.
type need struct {
	action policy.Action // "" with open
	worker bool          // where operators have a listener of their own, that of workers serves it as well
	open   bool          // any authenticated identity may call it, and it is not audited
	each   bool          // the handler asks for each thing it touches; the guard only whether the identity has the action at all
	create bool          // a refusal need not hide whether the name exists
	change bool          // it changes something: a record is written before it runs, too
}

// needs is the table: method → what it asks. A method that is not here is denied.
var needs = map[string]need{
	tokenbrokerv1.TokenService_GetToken_FullMethodName:       {worker: true, action: policy.TokenGet},
	tokenbrokerv1.TokenService_Subscribe_FullMethodName:      {worker: true, action: policy.TokenSubscribe, each: true},
	tokenbrokerv1.TokenService_ReportRejected_FullMethodName: {worker: true, action: policy.TokenReport},

	tokenbrokerv1.CredentialService_CreateCredential_FullMethodName:   {action: policy.CredentialCreate, create: true, change: true},
	tokenbrokerv1.CredentialService_GetCredential_FullMethodName:      {action: policy.CredentialGet},
	tokenbrokerv1.CredentialService_ListCredentials_FullMethodName:    {action: policy.CredentialList, each: true},
	tokenbrokerv1.CredentialService_UpdateCredential_FullMethodName:   {action: policy.CredentialUpdate, change: true},
	tokenbrokerv1.CredentialService_DeleteCredential_FullMethodName:   {action: policy.CredentialDelete, change: true},
	tokenbrokerv1.CredentialService_DisableCredential_FullMethodName:  {action: policy.CredentialDisable, change: true},
	tokenbrokerv1.CredentialService_EnableCredential_FullMethodName:   {action: policy.CredentialEnable, change: true},
	tokenbrokerv1.CredentialService_RefreshCredential_FullMethodName:  {action: policy.CredentialRefresh, change: true},
	tokenbrokerv1.CredentialService_ImportRefreshToken_FullMethodName: {action: policy.CredentialImport, change: true},
	tokenbrokerv1.CredentialService_RevokeCredentials_FullMethodName:  {action: policy.CredentialRevoke, each: true, change: true},
	tokenbrokerv1.CredentialService_CheckCredential_FullMethodName:    {action: policy.CredentialCheck, change: true},

	tokenbrokerv1.CredentialService_ListCredentialUsers_FullMethodName: {action: policy.CredentialUsers},

	tokenbrokerv1.AuditService_ListAuditRecords_FullMethodName: {action: policy.AuditRead, each: true},
	tokenbrokerv1.AuditService_TailAuditRecords_FullMethodName: {action: policy.AuditRead, each: true},
	tokenbrokerv1.AuditService_FindToken_FullMethodName:        {action: policy.AuditFind, each: true},

	tokenbrokerv1.PolicyService_Explain_FullMethodName: {action: policy.PolicyExplain, each: true},
	tokenbrokerv1.PolicyService_Lint_FullMethodName:    {action: policy.PolicyLint, each: true},

	tokenbrokerv1.ConsentService_BeginConsent_FullMethodName:    {action: policy.ConsentBegin, change: true},
	tokenbrokerv1.ConsentService_CompleteConsent_FullMethodName: {action: policy.ConsentComplete, each: true, change: true},
	tokenbrokerv1.ConsentService_GetConsent_FullMethodName:      {action: policy.ConsentGet, each: true},
	tokenbrokerv1.ConsentService_ListConsents_FullMethodName:    {action: policy.ConsentList, each: true},
	tokenbrokerv1.ConsentService_AcceptConsent_FullMethodName:   {action: policy.ConsentAccept, each: true, change: true},
	tokenbrokerv1.ConsentService_CancelConsent_FullMethodName:   {action: policy.ConsentCancel, each: true, change: true},

	tokenbrokerv1.ProviderService_ListProviders_FullMethodName: {action: policy.ProviderRead, each: true},
	tokenbrokerv1.ProviderService_GetProvider_FullMethodName:   {action: policy.ProviderRead, each: true},

	tokenbrokerv1.OAuthClientService_CreateOAuthClient_FullMethodName:  {action: policy.OAuthClientCreate, create: true, change: true},
	tokenbrokerv1.OAuthClientService_GetOAuthClient_FullMethodName:     {action: policy.OAuthClientGet},
	tokenbrokerv1.OAuthClientService_ListOAuthClients_FullMethodName:   {action: policy.OAuthClientList, each: true},
	tokenbrokerv1.OAuthClientService_UpdateOAuthClient_FullMethodName:  {action: policy.OAuthClientUpdate, change: true},
	tokenbrokerv1.OAuthClientService_DeleteOAuthClient_FullMethodName:  {action: policy.OAuthClientDelete, change: true},
	tokenbrokerv1.OAuthClientService_AddClientSecret_FullMethodName:    {action: policy.OAuthClientAddSecret, change: true},
	tokenbrokerv1.OAuthClientService_RetireClientSecret_FullMethodName: {action: policy.OAuthClientRetireSecret, change: true},

	grpc_health_v1.Health_Check_FullMethodName:                             {worker: true, open: true},
	grpc_health_v1.Health_List_FullMethodName:                              {worker: true, open: true},
	grpc_health_v1.Health_Watch_FullMethodName:                             {worker: true, open: true},
	reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName:      {worker: true, action: policy.ReflectionUse, each: true},
	reflectionv1alpha.ServerReflection_ServerReflectionInfo_FullMethodName: {worker: true, action: policy.ReflectionUse, each: true},
}
