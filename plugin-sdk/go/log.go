package plugin

import "tidemill.dev/plugin/internal/boundary"

// Level is how much a line of the log matters.
type Level uint32

// The levels, from least to most.
const (
	LevelTrace Level = iota
	LevelDebug
	LevelInfo
	LevelWarn
	LevelError
)

// Log writes one line to the host's log, at once. The host escapes control characters and limits the
// rate. Bytes that are not UTF-8 are replaced.
func Log(level Level, text string) {
	writeLog(level, boundary.Text(text))
}
