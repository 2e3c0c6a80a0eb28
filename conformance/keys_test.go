package conformance_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"testing"
)

// account is the service account of the key files.
const account = "robot@project.iam.gserviceaccount.example"

// newKeys makes key files as Google gives them out for a service account.
func newKeys(t *testing.T) []string {
	t.Helper()
	files := make([]string, 2)
	for i := range files {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		file, err := json.Marshal(map[string]string{
			"type": "service_account", "project_id": "project", "private_key_id": fmt.Sprintf("key-%d", i+1),
			"private_key":  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
			"client_email": account, "client_id": "100000000000000000001", "token_uri": "https://oauth2.googleapis.com/token",
		})
		if err != nil {
			t.Fatal(err)
		}
		files[i] = string(file)
	}
	return files
}
