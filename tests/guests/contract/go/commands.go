package main

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"time"

	"tidemill.dev/plugin"
	"tidemill.dev/plugin/state"
)

// commands is what becomes of a message by its text.
type commands struct {
	side    plugin.Output
	room    plugin.Read
	mark    plugin.Write
	observe bool
	// loaded is what the host's state has for the messages of a batch that ask for it.
	loaded [][]byte
}

func newCommands(setup *plugin.Setup, observe bool) *commands {
	c := &commands{side: setup.Output("side"), mark: setup.Write("mark"), observe: observe}
	if observe {
		setup.Times()
		c.room = setup.Read("room")
	}
	return c
}

// begin does for the whole batch what is done once a batch.
func (c *commands) begin(batch *plugin.Batch) error {
	var changes []state.Change
	var keys []string
	for m := range batch.Messages() {
		switch command, rest := cut(m.Bytes()); string(command) {
		case "fail":
			return errors.New(string(rest))
		case "save":
			changes = append(changes, change(rest))
		case "load":
			keys = append(keys, string(rest))
		}
	}
	if len(changes) > 0 {
		if err := state.SetMany(changes); err != nil {
			return err
		}
	}
	if len(keys) > 0 {
		c.loaded = state.GetMany(keys)
	}
	return nil
}

func (c *commands) obey(m plugin.Message, count uint64, out *plugin.Outcome) {
	if !m.IsText() {
		reversed := slices.Clone(m.Bytes())
		slices.Reverse(reversed)
		out.Emit(m).Bytes(reversed)
		return
	}
	command, rest := cut(m.Bytes())
	switch string(command) {
	case "forward":
		forwarded := out.Forward(m)
		if string(rest) == "side" {
			forwarded.To(c.side)
		}
	case "mark":
		out.Forward(m).Set(c.mark, value(rest))
	case "drop", "save":
	case "emit":
		c.emit(rest, m, out)
	case "both":
		out.Forward(m)
		out.Emit(m).Bytes(rest)
	case "room":
		emission := out.Emit(m)
		if c.observe {
			emission.Bytes(m.Metadata(c.room))
		}
	case "time":
		out.Emit(m).Uint(m.Received())
	case "count":
		out.Emit(m).Uint(count)
	case "load":
		loaded := c.loaded[0]
		c.loaded = c.loaded[1:]
		if loaded == nil {
			loaded = []byte("-")
		}
		out.Emit(m).Bytes(loaded)
	case "later":
		after, why := cut(rest)
		out.Retry(m, string(why), time.Duration(number(after))*time.Millisecond)
	case "reject":
		out.Reject(m, string(rest))
	default:
		out.Forward(m)
	}
}

// emit obeys `OUTPUT:MARK:TEXT`.
func (c *commands) emit(order []byte, m plugin.Message, out *plugin.Outcome) {
	output, order := cut(order)
	mark, text := cut(order)
	emission := out.Emit(m)
	if string(output) == "side" {
		emission.To(c.side)
	}
	if len(mark) > 0 {
		emission.Set(c.mark, value(mark))
	}
	emission.Bytes(text)
}

// change is what `KEY:TTL:VALUE` asks for.
func change(order []byte) state.Change {
	key, order := cut(order)
	ttl, value := cut(order)
	if string(value) == "-" {
		return state.Change{Key: string(key)}
	}
	return state.Change{Key: string(key), Value: value, For: time.Duration(number(ttl)) * time.Millisecond}
}

// value is a value of metadata, of which "-" is none.
func value(text []byte) string {
	if string(text) == "-" {
		return ""
	}
	return string(text)
}

func number(digits []byte) uint64 {
	n, err := strconv.ParseUint(string(digits), 10, 32)
	if err != nil {
		panic(err)
	}
	return n
}

// cut is what is before the first colon, and what is after.
func cut(text []byte) (before, after []byte) {
	before, after, _ = bytes.Cut(text, []byte(":"))
	return before, after
}
