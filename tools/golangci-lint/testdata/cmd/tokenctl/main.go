// Command tokenctl reaches behind the API.
package main

import _ "github.com/tokenbroker/tokenbroker/store/bolt"

func main() {}
