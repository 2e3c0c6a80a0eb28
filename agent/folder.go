package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// checkFolder looks whether others could put something of theirs in place of what the agent makes in a folder.
func checkFolder(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("look at the folder: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is no folder", path)
	}
	if others(info) {
		return fmt.Errorf("the folder %s may be written to by others, who could put something of theirs in place of the agent's: give it one of its own", path)
	}
	if owner, foreign := foreign(info); foreign {
		return fmt.Errorf("the folder %s belongs to another user (%d): give the agent one of its own", path, owner)
	}
	return checkWay(path)
}

// maxLinks is how many symbolic links may be on the way to a folder, as Linux has it.
const maxLinks = 40

// checkWay looks at each folder from the root on, and at each symbolic link between, whether others could lead the way elsewhere: who may rename
// a folder above has what is in it. OpenSSH's StrictModes does likewise. One with the sticky bit, as /tmp, lets others make new things in it
// and rename none but their own. What is not there is for whoever makes it to tell.
func checkWay(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("look at the folder: %w", err)
	}
	at := string(filepath.Separator)
	names := strings.Split(path, at)
	for links := 0; ; {
		info, err := os.Lstat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return fmt.Errorf("look at the folders above %s: %w", path, err)
		}
		if err := checkStep(at, info); err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			if links++; links > maxLinks {
				return fmt.Errorf("%s: there are more than %d symbolic links on the way", path, maxLinks)
			}
			to, err := os.Readlink(at)
			if err != nil {
				return fmt.Errorf("look at the folders above %s: %w", path, err)
			}
			if at = filepath.Dir(at); filepath.IsAbs(to) {
				at = string(filepath.Separator)
			}
			names = append(strings.Split(to, string(filepath.Separator)), names...)
		} else if len(names) == 0 {
			return nil
		}
		if len(names) > 0 {
			at, names = filepath.Join(at, names[0]), names[1:]
		}
	}
}

// checkStep looks at one folder or symbolic link on the way.
func checkStep(at string, info fs.FileInfo) error {
	if owner, foreign := foreign(info); foreign {
		return fmt.Errorf("%s, on the way to the agent's folder, belongs to another user (%d), who could put something of theirs in place of the agent's: "+
			"give the agent another place", at, owner)
	}
	if info.IsDir() && others(info) && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("%s, on the way to the agent's folder, may be written to by others, who could put something of theirs in place of the agent's: "+
			"take that from them (chmod go-w), or give the agent another place", at)
	}
	return nil
}

// others reports whether others than the owner may write to a folder.
func others(info fs.FileInfo) bool { return info.Mode().Perm()&0o022 != 0 }

// foreign reports whether something belongs to another user than the agent's and root. The owner of the root folder is as good as root: in some
// user namespaces root has another number.
func foreign(info fs.FileInfo) (owner uint32, foreign bool) {
	owner, known := ownerOf(info)
	if !known || owner == ownUID() || owner == 0 {
		return owner, false
	}
	root, err := os.Stat(string(filepath.Separator))
	if err != nil {
		return owner, true
	}
	top, known := ownerOf(root)
	return owner, !known || owner != top
}
