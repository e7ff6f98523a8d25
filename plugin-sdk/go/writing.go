package plugin

import (
	"slices"

	"tidemill.dev/plugin/internal/boundary"
)

// writings is what the emissions, or the forwarded messages, of one call do with metadata.
type writings struct {
	// keys has one for each key of [Setup.Write].
	keys []writing
	// columns is only filled to cross.
	columns []boundary.Writing
}

// writing is the values that some messages were given for one key, in a row.
type writing struct {
	messages []uint32
	data     []byte
	ends     []uint32
	// settings is only filled to cross.
	settings []boundary.Setting
}

func (w *writings) set(key Write, message int, value string) {
	w.keys[key.column].set(message, value)
}

// keep forgets what messages from this number on were given.
func (w *writings) keep(count int) {
	for i := range w.keys {
		w.keys[i].keep(count)
	}
}

func (w *writings) resize(keys int) {
	if len(w.keys) != keys {
		w.keys, w.columns = make([]writing, keys), make([]boundary.Writing, keys)
	}
}

// lower is the writings as they cross: nothing, if none was used.
func (w *writings) lower(count int) boundary.List {
	if !slices.ContainsFunc(w.keys, func(key writing) bool { return len(key.messages) > 0 }) {
		return boundary.List{}
	}
	for i := range w.keys {
		w.keys[i].lower(&w.columns[i], count)
	}
	return boundary.ListOf(w.columns)
}

func (w *writing) set(message int, value string) {
	w.keep(message)
	w.data = append(w.data, boundary.Text(value)...)
	w.messages = append(w.messages, uint32(message))
	w.ends = append(w.ends, uint32(len(w.data)))
}

func (w *writing) keep(count int) {
	kept := len(w.messages)
	for kept > 0 && int(w.messages[kept-1]) >= count {
		kept--
	}
	w.messages, w.ends = w.messages[:kept], w.ends[:kept]
	w.data = w.data[:end(w.ends)]
}

// lower is the values in a row if every message has one, as a list of those that have otherwise.
func (w *writing) lower(to *boundary.Writing, count int) {
	switch len(w.messages) {
	case 0:
		to.Tag.Value = boundary.WritingInherit
	case count:
		to.Tag.Value = boundary.WritingPacked
		to.Data, to.Ends = boundary.ListOf(w.data), boundary.ListOf(w.ends)
	default:
		w.settings = w.settings[:0]
		var start uint32
		for i, message := range w.messages {
			value := boundary.ListOf(w.data[start:w.ends[i]])
			w.settings = append(w.settings, boundary.Setting{Index: message, Value: value})
			start = w.ends[i]
		}
		to.Tag.Value = boundary.WritingSparse
		to.Data = boundary.ListOf(w.settings)
	}
}
