package main

import (
	"encoding/json"
	"os"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// execCredential is the answer of a credential plugin of Kubernetes: client.authentication.k8s.io/v1, and v1beta1, which has the same fields.
type execCredential struct {
	APIVersion string     `json:"apiVersion"`
	Kind       string     `json:"kind"`
	Status     execStatus `json:"status"`
}

type execStatus struct {
	ExpirationTimestamp string `json:"expirationTimestamp,omitempty"` // the client keeps the token until then
	Token               string `json:"token"`
}

const execGroup = "client.authentication.k8s.io/"

// execVersion is the version that the client asks for, which wants its own back. A client that says nothing gets v1.
func execVersion() (string, error) {
	info := os.Getenv("KUBERNETES_EXEC_INFO")
	if info == "" {
		return execGroup + "v1", nil
	}
	var asked struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := json.Unmarshal([]byte(info), &asked); err != nil || asked.Kind != "ExecCredential" {
		return "", &failure{exit: exitFix, what: "KUBERNETES_EXEC_INFO holds no ExecCredential", action: "let kubectl set it, or unset it"}
	}
	if asked.APIVersion == execGroup+"v1" || asked.APIVersion == execGroup+"v1beta1" {
		return asked.APIVersion, nil
	}
	return "", &failure{exit: exitFix, what: "KUBERNETES_EXEC_INFO asks for a version that this tokenctl does not know",
		action: "write apiVersion: " + execGroup + "v1 into the exec section of the kubeconfig"}
}

// execCredential prints a token for a client of Kubernetes, which sends it as a bearer token.
func (s *session) execCredential(version, credential string, token *tokenbrokerv1.Token) error {
	if err := bearer(credential, token); err != nil {
		return err
	}
	answer := execCredential{APIVersion: version, Kind: "ExecCredential", Status: execStatus{Token: token.GetAccessToken()}}
	if t := token.GetExpireTime(); t != nil {
		answer.Status.ExpirationTimestamp = stamp(t.AsTime())
	}
	return json.NewEncoder(s.out).Encode(answer)
}
