package attack_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// numbered finds the numbers of the threat model in the names of test functions.
var numbered = regexp.MustCompile(`(?m)^func Test([SP]\d\d)[A-Z]`)

// rows are the attacks and promises that must have a test named after them, wherever in the repository it is.
func rows() (list []string) {
	for n := range 34 {
		list = append(list, fmt.Sprintf("S%02d", n+1))
	}
	return append(list, "P10", "P11", "P12", "P13", "P14", "P24", "P25")
}

// TestEveryRowHasATest looks through all tests of the repository for those named after a row.
func TestEveryRowHasATest(t *testing.T) {
	t.Parallel()
	found := map[string][]string{}
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "node_modules" || entry.Name() == "testdata" || entry.Name() == ".git"):
			return fs.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range numbered.FindAllSubmatch(text, -1) {
			found[string(m[1])] = append(found[string(m[1])], path)
		}
		return err
	})
	must(t, err)
	var missing []string
	for _, row := range rows() {
		if len(found[row]) == 0 {
			missing = append(missing, row)
		}
	}
	if len(missing) > 0 {
		t.Errorf("no test is named after %s", strings.Join(missing, ", "))
	}
	for row, files := range found {
		if !slices.Contains(rows(), row) {
			t.Errorf("%v is named after %s, which is no row", files, row)
		}
	}
}
