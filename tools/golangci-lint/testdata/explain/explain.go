// Package explain does something.
package explain

import _ "os" // for its arrow
