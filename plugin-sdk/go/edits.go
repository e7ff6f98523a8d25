package plugin

import (
	"math"

	"tidemill.dev/plugin/internal/boundary"
)

// edits is what is changed in the forwarded messages of one call.
type edits struct {
	// places has one for each [Setup.Edit].
	places []edit
	// columns is only filled to cross.
	columns []boundary.Values
}

// edit is the values that one place is given, one a forwarded message, as far as there are any: numbers
// while all are numbers, else JSON texts in a row.
type edit struct {
	isText  bool
	numbers []float64
	data    []byte
	ends    []uint32
	absent  []byte
}

func (e *edits) resize(places int) {
	if len(e.places) != places {
		e.places, e.columns = make([]edit, places), make([]boundary.Values, places)
	}
}

// keep forgets what forwarded messages from this number on were given.
func (e *edits) keep(count int) {
	for i := range e.places {
		e.places[i].keep(count)
	}
}

// lower is the edits as they cross: nothing, if none was used.
func (e *edits) lower(count int) boundary.List {
	isUsed := false
	for i := range e.places {
		isUsed = isUsed || e.places[i].len() > 0
	}
	if !isUsed {
		return boundary.List{}
	}
	for i := range e.places {
		e.places[i].lower(&e.columns[i], count)
	}
	return boundary.ListOf(e.columns)
}

func (e *edit) len() int {
	if e.isText {
		return len(e.ends)
	}
	return len(e.numbers)
}

func (e *edit) setNumber(forwarded int, number float64) {
	e.keep(forwarded)
	e.pad(forwarded)
	switch {
	case !e.isText:
		e.numbers = append(e.numbers, number)
	case math.IsNaN(number):
		e.close(1)
	default:
		e.data = appendNumber(e.data, number)
		e.close(0)
	}
}

func (e *edit) setText(forwarded int, text []byte) {
	e.keep(forwarded)
	if !e.isText {
		e.toTexts()
	}
	e.pad(forwarded)
	e.data = append(e.data, text...)
	e.close(0)
}

func (e *edit) keep(count int) {
	if count >= e.len() {
		return
	}
	if e.isText {
		e.ends, e.absent = e.ends[:count], e.absent[:count]
		e.data = e.data[:end(e.ends)]
	} else {
		e.numbers = e.numbers[:count]
	}
	if count == 0 {
		e.isText = false
	}
}

// pad leaves messages as they are, up to this one.
func (e *edit) pad(forwarded int) {
	for e.len() < forwarded {
		if e.isText {
			e.close(1)
		} else {
			e.numbers = append(e.numbers, math.NaN())
		}
	}
}

// close ends a text.
func (e *edit) close(absent byte) {
	e.ends = append(e.ends, uint32(len(e.data)))
	e.absent = append(e.absent, absent)
}

// toTexts writes the numbers so far as texts: a column is one or the other.
func (e *edit) toTexts() {
	e.isText = true
	e.data, e.ends, e.absent = e.data[:0], e.ends[:0], e.absent[:0]
	numbers := e.numbers
	e.numbers = e.numbers[:0]
	for forwarded, number := range numbers {
		e.setNumber(forwarded, number)
	}
}

func (e *edit) lower(to *boundary.Values, count int) {
	e.pad(count)
	packed := &to.Packed
	if !e.isText {
		to.Tag.Value = boundary.ValuesNumbers
		packed.Data = boundary.ListOf(e.numbers)
		return
	}
	to.Tag.Value = boundary.ValuesPacked
	packed.Data, packed.Ends = boundary.ListOf(e.data), boundary.ListOf(e.ends)
	packed.Marks.Tag.Value, packed.Marks.List = boundary.Some, boundary.ListOf(e.absent)
}
