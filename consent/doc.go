// Package consent connects accounts: it sends a person to a provider, takes what comes back, and gives it to the credential.
//
// A consent goes one of four ways: the caller catches the redirect on a loopback port, a person pastes the URL, a person types a code in on
// another device, or an account owner opens a one-time link to the broker's own page. Whatever the way, the broker makes state, PKCE
// verifier and nonce, redeems the code itself, and who asks for a consent sees no token.
//
// # Promises
//
//   - A code is sent to the provider at most once. That it is used is durable before it is sent, so neither a second call nor a restart
//     sends it again.
//   - A state parameter is 256 random bits, of which the hash is kept; it works once, for ten minutes.
//   - A consent by loopback or paste is completed by the identity that began it and by nobody else; one by link by the browser that
//     pressed the button on its page. Looking at a link changes nothing, so a scanner that follows it does no harm.
//   - A consent by link takes effect when an operator accepts the account that consented. Until then what it brought lies sealed in the
//     record of the consent.
//   - A credential that knows its account takes no other, unless that other one is expected by name. A grant that is refused is ended at the
//     provider, and so is one that nobody accepts in a week.
//   - What is logged or audited of a consent is its id, credential, state and error code; never a code, state, link, token or account page.
//
// # Steps
//
//	PENDING ──code──▶ redeeming ──▶ adopting ──▶ DONE
//	                      └─ link ─▶ AWAITING_ACCEPTANCE ──accept──▶ adopting ──▶ DONE
//	                                          └─ cancel, expiry ──▶ revoking
//
// Each step is written before it is taken. A restart finds a consent that is redeeming to be FAILED, for the code may be spent; it finishes
// what was adopting and revoking, and polls on for device codes.
//
// It refuses to judge who may begin or accept a consent; whoever calls it has asked the policy.
package consent
