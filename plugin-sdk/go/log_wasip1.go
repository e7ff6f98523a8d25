package plugin

import "tidemill.dev/plugin/internal/boundary"

//go:wasmimport tidemill:plugin/log@0.1.0 write
func importWrite(level Level, text string)

func writeLog(level Level, text string) {
	boundary.EnterImport()
	importWrite(level, text)
}
