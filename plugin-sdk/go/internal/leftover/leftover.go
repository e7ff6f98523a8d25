// Package leftover finds goroutines that a call has started and that still run when it returns. What they did next would
// be done in another call, or never.
package leftover

import (
	"errors"
	"path"
	"runtime"
	"strings"
)

// mostYields is how often goroutines that a call has ended are let finish before they count as left running.
const mostYields = 16

// started is the goroutines that were there when the plugin was made: they may go on between calls.
var started struct {
	count int
	names map[string]bool
}

// Note notes those that the plugin has started when it was made.
func Note() {
	started.count = runtime.NumGoroutine()
	started.names = map[string]bool{}
	if started.count > 1 {
		for _, trace := range goroutines() {
			started.names[nameOf(trace)] = true
		}
	}
}

// Of is an error if a call has started a goroutine that still runs. What it does next would be done in another call, or
// never, and on memory that is used again by then.
func Of(call string) error {
	for range mostYields {
		if runtime.NumGoroutine() <= started.count {
			return nil
		}
		runtime.Gosched()
	}
	if runtime.NumGoroutine() <= started.count {
		return nil
	}
	place := ""
	// The first is the one that asks.
	for _, trace := range goroutines()[1:] {
		if line, ok := startOf(trace); ok && !started.names[nameOf(trace)] {
			place = " at " + line
			break
		}
	}
	return errors.New("a goroutine that " + call + " started" + place + " still runs when " + call + " returns: " +
		"wait for it, as with sync.WaitGroup, or start it when the plugin is made")
}

// goroutines is what the runtime says of each.
func goroutines() []string {
	text := make([]byte, 64<<10)
	return strings.Split(string(text[:runtime.Stack(text, true)]), "\n\n")
}

// nameOf is `goroutine 7`.
func nameOf(trace string) string {
	name, _, _ := strings.Cut(trace, " [")
	return name
}

// startOf is the file and the line of the statement that started a goroutine: behind the last words of what the runtime
// says of it, `created by main.f in goroutine 1` and in the next line `\t/folder/plugin.go:12 +0x5`.
func startOf(trace string) (line string, ok bool) {
	_, last, ok := strings.Cut(trace, "created by ")
	if !ok {
		return "", false
	}
	_, last, ok = strings.Cut(last, "\n\t")
	line, _, _ = strings.Cut(last, " ")
	return path.Base(line), ok
}
