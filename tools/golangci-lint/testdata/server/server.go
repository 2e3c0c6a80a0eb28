// Package server goes past the engine and prints a message.
package server

import (
	"fmt"
	"net/http"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	_ "github.com/tokenbroker/tokenbroker/store/bolt" // for its arrow
)

// Handle leaks.
func Handle(r tokenbrokerv1.GetTokenResponse) {
	s := r.String()
	fmt.Println(s)
	_ = http.ListenAndServe("127.0.0.1:0", nil)
}
