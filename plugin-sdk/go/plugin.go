// Package plugin is the Go SDK: a plugin is a value with a method Process, and a component is what
// the standard toolchain and `tidemill` make of it.
//
//	package main
//
//	import "tidemill.dev/plugin"
//
//	func init() {
//		plugin.Export(func(setup *plugin.Setup) (plugin.Plugin, error) {
//			errors := setup.Output("errors")
//			return plugin.Func(func(m plugin.Message, out *plugin.Outcome) error {
//				out.Forward(m).To(errors)
//				return nil
//			}), nil
//		})
//	}
//
//	func main() {}
//
// One instance is only ever called by one caller at a time. A panic that nobody recovers is a fault:
// its text goes to the host's log, the instance is thrown away, and the host looks for the message at
// fault. Goroutines run while a call is in progress and rest between two calls. One that Process starts has to end before
// it returns: what it did later would be done in another call.
//
// There are no files, no network and no environment. What is printed to standard output and standard
// error goes to the host's log, line by line. The time and the seed of math/rand are the host's, which
// a replay repeats. To sleep only moves the monotonic clock: nothing waits.
package plugin

import (
	"errors"
	"time"
)

// Plugin decides on messages.
type Plugin interface {
	// Process decides on a batch, in the order of its messages; those that out is told nothing of are
	// filtered. The batch, and what was read out of it, is only valid until Process returns.
	//
	// An error is a fault of the whole call, as a panic is. To refuse single messages there is
	// [Outcome.Reject].
	Process(batch *Batch, out *Outcome) error
}

// Func is a plugin that decides on one message after the other and needs no more. An error rejects
// the message, and what out was told of it does not count.
type Func func(m Message, out *Outcome) error

// Process calls the function for each message.
func (decide Func) Process(batch *Batch, out *Outcome) error {
	for m := range batch.Messages() {
		if err := decide(m, out); err != nil {
			out.Reject(m, err.Error())
		}
		if out.Stopped() {
			break
		}
	}
	return nil
}

// Ticker is a plugin that does something at the interval of [Setup.TickEvery], also when no message
// comes. Time is the host's.
type Ticker interface {
	Tick(now time.Time, out *Emissions) error
}

// Finisher is a plugin that has something to say once no message will follow. It is not called when
// another version of the plugin takes over.
type Finisher interface {
	Finish(out *Emissions) error
}

// Stateful is a plugin whose state goes on in the version that follows it, or after a restart.
type Stateful interface {
	// Snapshot gives the state as bytes of the plugin's own making; nil where there is none to carry.
	// It changes nothing.
	Snapshot() ([]byte, error)

	// Restore goes on from snapshots of this or an earlier version, before the first message: as a
	// rule from one, with the whole of all keys. After a change of the number of instances there is one
	// of each old instance, and the plugin keeps of them the keys of its share. The snapshots are only
	// valid until Restore returns. An error refuses the state.
	Restore(snapshots [][]byte, share Share) error
}

// Share says which keys are those of one instance of several.
type Share struct {
	// Part is which one, from 0.
	Part uint32
	// Parts is how many there are.
	Parts uint32
}

// Has tells whether a key belongs to the share, as the host shares out messages by key.
func (share Share) Has(key string) bool {
	const offsetBasis, prime = 14695981039346656037, 1099511628211
	hash := uint64(offsetBasis)
	for i := range len(key) {
		hash = (hash ^ uint64(key[i])) * prime
	}
	return hash%uint64(share.Parts) == uint64(share.Part)
}

// makePlugin is what [Export] was given.
var makePlugin func(*Setup) (Plugin, error)

// Export says how the plugin is made. It is called once, from an init function of package main. The
// function may refuse the configuration with an error, which the person who wrote it sees.
func Export(plugin func(setup *Setup) (Plugin, error)) {
	if plugin == nil {
		panic("plugin.Export takes the function that makes the plugin, and was given nil")
	}
	if makePlugin != nil {
		// A build looks for this text: it is not there where nothing calls this function.
		panic("plugin.Export is called once")
	}
	makePlugin = plugin
}

// made is the plugin that the function makes.
func made(setup *Setup) (Plugin, error) {
	plugin, err := makePlugin(setup)
	if err != nil {
		return nil, err
	}
	decide, isFunc := plugin.(Func)
	if plugin == nil || isFunc && decide == nil {
		return nil, errors.New("the function that plugin.Export was given has returned nil in the place of a plugin")
	}
	return plugin, nil
}
