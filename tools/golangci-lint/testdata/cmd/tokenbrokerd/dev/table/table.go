// Package table breaks the arrow of a model that does nothing.
package table

import (
	_ "os" // refused
)
