package sandbox

// ErrorAnswer is an OAuth error in words that matter.
type ErrorAnswer struct {
	Code        string
	Description string
}

// GoogleErrors are the rows of Google's table of JWT errors, by names of ours, for [FaultSpec] and for tests. A description
// is Google's where its table has one; most of the rows also come by themselves, see [ServiceAccount].
func GoogleErrors() map[string]ErrorAnswer {
	return map[string]ErrorAnswer{
		"delegation":       {"unauthorized_client", badDelegation},
		"delegation_scope": {"unauthorized_client", badScopes},
		"access_denied":    {"access_denied", "Requested client not authorized."},
		"admin_policy":     {"admin_policy_enforced", "Access to your account data is restricted by policies within your organization."},
		"invalid_client":   {"invalid_client", "The OAuth client was not found."},
		"email":            {"invalid_grant", badEmail},
		"time_frame":       {"invalid_grant", badTimeFrame},
		"signature":        {"invalid_grant", badSignature},
		"scope":            {"invalid_scope", badScope},
		"disabled":         {"disabled_client", disabled},
		"org_internal":     {"org_internal", "This client is restricted to users within its organization."},
	}
}
