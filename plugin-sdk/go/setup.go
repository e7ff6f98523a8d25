package plugin

import (
	"slices"
	"time"

	"tidemill.dev/plugin/internal/boundary"
	"tidemill.dev/plugin/internal/configuration"
)

// Setup is what a plugin is made from: what the host says, and what the plugin asks for. Each request
// gives a handle, so that what was not asked for cannot be used by mistake.
type Setup struct {
	// Config is the transform's config table as JSON.
	Config []byte
	// Facts say where the plugin runs: "contract" and "host" (versions), "pipeline", "transform",
	// "instance" (from 0), "instances", and "shadow" ("true" where the outcome is only compared).
	Facts map[string]string

	outputs, reads, writes, edits []string
	fields                        []field
	onlyJSON, noPayloads, times   bool
	guards                        bool
	tickMS                        uint32
}

// Output is a named way out of the plugin. The zero value is the output "default".
type Output struct{ number uint16 }

// Read is a metadata key that the plugin sees.
type Read struct{ column int }

// Write is a metadata key that the plugin may set.
type Write struct{ column int }

// Number is a JSON field that the plugin sees as a number.
type Number struct{ column int }

// Text is a JSON field that the plugin sees as text: of a string, or as it stands in the message.
type Text struct{ column int }

// Edit is a place in a JSON message that the plugin may change.
type Edit struct{ column int }

type kind uint8

const (
	kindNumber kind = iota
	kindText
	kindJSON
)

type field struct {
	pointer string
	kind    kind
}

// mostOutputs is what 16 bits number, "default" among them.
const mostOutputs = 1 << 16

// DecodeConfig reads the configuration into the struct that to points to. A key that the struct does not
// have is refused, and so is a value of another type.
func (s *Setup) DecodeConfig(to any) error { return configuration.Decode(s.Config, to) }

// Output names a way out beside "default".
func (s *Setup) Output(name string) Output {
	if name == "default" {
		return Output{}
	}
	number := place(&s.outputs, name) + 1
	if number >= mostOutputs {
		panic("a plugin has fewer than 65,536 outputs")
	}
	return Output{uint16(number)}
}

// Read asks for a metadata key of every message.
func (s *Setup) Read(key string) Read { return Read{place(&s.reads, key)} }

// Write announces a metadata key that the plugin may set.
func (s *Setup) Write(key string) Write { return Write{place(&s.writes, key)} }

// Number asks for a field of every message, a JSON pointer such as "/price", as a number. A string
// that holds a number counts. The host finds all fields in one go, in native code.
func (s *Setup) Number(pointer string) Number {
	return Number{place(&s.fields, field{pointer, kindNumber})}
}

// Text asks for a field that is a string, without quotes and escapes.
func (s *Setup) Text(pointer string) Text { return Text{place(&s.fields, field{pointer, kindText})} }

// JSON asks for a field of any type, as it stands in the message.
func (s *Setup) JSON(pointer string) Text { return Text{place(&s.fields, field{pointer, kindJSON})} }

// Edit announces a place that the plugin may change in the messages that it forwards: a JSON pointer
// to a member of an object, or to an element that an array has.
func (s *Setup) Edit(pointer string) Edit { return Edit{place(&s.edits, pointer)} }

// OnlyJSON has the host reject every message that is not JSON; the plugin never sees them.
func (s *Setup) OnlyJSON() { s.onlyJSON = true }

// Guards says that the plugin is there to keep something from going on, as one that redacts is: the host
// warns where on_error = "pass" would let a message go on as it came.
func (s *Setup) Guards() { s.guards = true }

// WithoutPayloads says that fields and metadata are enough: payloads do not cross, and messages are
// empty.
func (s *Setup) WithoutPayloads() { s.noPayloads = true }

// Times asks for when each message was received.
func (s *Setup) Times() { s.times = true }

// TickEvery asks for [Ticker] this often, in whole milliseconds and at least one. The transform's key
// "tick" in the host's configuration overrides it.
func (s *Setup) TickEvery(interval time.Duration) {
	s.tickMS = boundary.Milliseconds(max(interval, time.Millisecond))
}

// place is where a value stands in a list, which it joins if it is new.
func place[T comparable](list *[]T, value T) int {
	if known := slices.Index(*list, value); known >= 0 {
		return known
	}
	*list = append(*list, value)
	return len(*list) - 1
}
