//go:build unix

package agent

import (
	"io/fs"
	"syscall"
)

// ownerOf is the uid that a file belongs to.
func ownerOf(info fs.FileInfo) (uid uint32, known bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return st.Uid, true
}
