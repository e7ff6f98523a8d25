//go:build !wasip1

package plugin

import (
	"fmt"
	"os"
)

// writeLog is for native tests of a plugin.
func writeLog(level Level, text string) {
	names := [...]string{"trace", "debug", "info", "warn", "error"}
	fmt.Fprintln(os.Stderr, names[level], text)
}
