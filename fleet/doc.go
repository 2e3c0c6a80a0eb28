// Package fleet holds no code, only a test: many workers, in Go and in shell, that call a resource server while the tokens break and the
// broker goes away.
//
// The broker and the agent are the real commands. Workers use each way that there is to a token: the Transport, the HTTPClient, TokenSource,
// PerRPCCredentials, Subscribe and OnChange of package client, and get, header, curl, exec, file and git-credential of tokenctl; half of them
// straight from the broker and half through an agent. The resource server revokes tokens, condemns them, refuses them once for no reason, and
// asks for scopes that they have not. The broker is restarted, drained, and stopped so that it does not answer.
//
// A token may be ended together with the one that comes in its place, so that no good one can be had for two floors.
//
// The provider keeps a ledger: which token there was when, why it ended, and by the broker's trail whether it was lost with a broker that was
// killed. By that, and by when the broker could be reached, each request that failed is judged. One that failed while a worker had a good
// token, or could have had one, fails the test. So does an exchange that brought no new generation, a refresh that came too soon after the one
// before, and a token on a command line, in an environment but the one that tokenctl exec --env is for, in a shell's history, a log or a trail.
//
// An ordinary run is short, with few workers. With TOKENBROKER_SOAK set, as make soak does, there are fifty workers in Go and the broker is
// out of reach for ten seconds; TOKENBROKER_FLEET_SEED repeats the chances of a run.
package fleet
