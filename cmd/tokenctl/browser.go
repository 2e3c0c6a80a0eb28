package main

import (
	"os/exec"
	"runtime"
)

// opener is the program of the desktop that opens a URL.
func opener(goos string) []string {
	switch goos {
	case "darwin":
		return []string{"open"}
	case "windows":
		return []string{"rundll32", "url.dll,FileProtocolHandler"}
	default:
		return []string{"xdg-open"}
	}
}

// openBrowser opens a URL that webAddress has checked. It does not wait: the opener may be the browser itself, which goes on when this
// command ends. That it did nothing is no harm, since the URL is printed, too.
func openBrowser(url string) error {
	command := opener(runtime.GOOS)
	cmd := exec.Command(command[0], append(command[1:], url)...) //nolint:noctx // the program is fixed; a browser outlives the command that opened it
	cmd.SysProcAttr = detached()
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}
