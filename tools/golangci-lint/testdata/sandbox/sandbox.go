// Package sandbox is for tests of everybody, and must not be judged by what it is to judge.
package sandbox

import _ "github.com/tokenbroker/tokenbroker/broker" // for its arrow
