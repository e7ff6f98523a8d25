package plugin

import (
	"strconv"

	"tidemill.dev/plugin/internal/boundary"
)

// Emissions are new messages.
type Emissions struct {
	data    []byte
	ends    []uint32
	binary  []byte
	origins []uint32
	outputs []uint16

	writings writings
}

// Emission is a new message that is being written. It is complete when the next one begins, or when
// the call ends. What is appended goes straight to where the host reads it.
//
// An emission of a message is text or binary as that message is, one of a timer is text;
// [Emission.Binary] changes that. Text must be UTF-8 when it is complete, or the whole call is at
// fault. It is an [io.Writer], for fmt.Fprintf and encoders.
type Emission struct {
	emissions *Emissions
	index     int
}

// Emit begins a new message that has no origin.
func (e *Emissions) Emit() Emission { return e.begin(false) }

// Len is how many there are.
func (e *Emissions) Len() int { return len(e.ends) }

func (e *Emissions) begin(binary bool) Emission {
	index := len(e.ends)
	e.ends = append(e.ends, uint32(len(e.data)))
	if binary || len(e.binary) > 0 {
		e.setBinary(index, binary)
	}
	return Emission{e, index}
}

func (e *Emissions) setBinary(index int, binary bool) {
	e.binary = grown(e.binary, index+1)
	e.binary[index] = 0
	if binary {
		e.binary[index] = 1
	}
}

// To sends it to an output.
func (m Emission) To(output Output) Emission {
	e := m.open()
	if output.number != 0 || len(e.outputs) > 0 {
		e.outputs = grown(e.outputs, m.index+1)
		e.outputs[m.index] = output.number
	}
	return m
}

// Binary makes it a binary message, or a text message.
func (m Emission) Binary(binary bool) Emission {
	if e := m.open(); binary || len(e.binary) > 0 {
		e.setBinary(m.index, binary)
	}
	return m
}

// Set gives it its own value of a metadata key; "" removes the key. What is not set is inherited from
// the message it came from.
func (m Emission) Set(key Write, value string) Emission {
	m.open().writings.set(key, m.index, value)
	return m
}

// Text appends text.
func (m Emission) Text(text string) Emission {
	e := m.open()
	return m.appended(append(e.data, text...))
}

// Bytes appends bytes.
func (m Emission) Bytes(bytes []byte) Emission {
	e := m.open()
	return m.appended(append(e.data, bytes...))
}

// Int appends a number in decimal digits.
func (m Emission) Int(number int64) Emission {
	e := m.open()
	return m.appended(strconv.AppendInt(e.data, number, 10))
}

// Uint appends a number in decimal digits.
func (m Emission) Uint(number uint64) Emission {
	e := m.open()
	return m.appended(strconv.AppendUint(e.data, number, 10))
}

// Float appends a number as the shortest decimal that reads back as the same.
func (m Emission) Float(number float64) Emission {
	e := m.open()
	return m.appended(appendNumber(e.data, number))
}

// Write appends bytes; it cannot fail.
func (m Emission) Write(bytes []byte) (int, error) {
	m.Bytes(bytes)
	return len(bytes), nil
}

// WriteString appends text; it cannot fail.
func (m Emission) WriteString(text string) (int, error) {
	m.Text(text)
	return len(text), nil
}

// open gives the emissions, of which this must be the last.
func (m Emission) open() *Emissions {
	if m.index != len(m.emissions.ends)-1 {
		panic("an emission is complete when the next one begins")
	}
	return m.emissions
}

func (m Emission) appended(data []byte) Emission {
	m.emissions.data = data
	m.emissions.ends[m.index] = uint32(len(data))
	return m
}

// takeBack forgets the emissions of the message that was decided on last.
func (e *Emissions) takeBack(origin uint32) {
	kept := len(e.origins)
	for kept > 0 && e.origins[kept-1] == origin {
		kept--
	}
	e.keep(kept)
}

// keep forgets all emissions from this number on.
func (e *Emissions) keep(count int) {
	if count >= len(e.ends) {
		return
	}
	e.ends = e.ends[:count]
	e.origins = e.origins[:min(count, len(e.origins))]
	e.binary = e.binary[:min(count, len(e.binary))]
	e.outputs = e.outputs[:min(count, len(e.outputs))]
	e.data = e.data[:end(e.ends)]
	e.writings.keep(count)
}

// reset forgets everything but the memory that it takes.
func (e *Emissions) reset(writes int) {
	e.keep(0)
	e.writings.resize(writes)
}

// lower is the emissions as they cross; there is at least one.
func (e *Emissions) lower(to *boundary.Emissions) {
	count := len(e.ends)
	to.Payloads.Tag.Value = boundary.PayloadsPacked
	to.Payloads.Packed.Data = boundary.ListOf(e.data)
	to.Payloads.Packed.Ends = boundary.ListOf(e.ends)
	marks := &to.Payloads.Packed.Marks
	marks.Tag.Value = boundary.None
	if len(e.binary) > 0 {
		e.binary = grown(e.binary, count)
		marks.Tag.Value = boundary.Some
		marks.List = boundary.ListOf(e.binary)
	}
	if len(e.outputs) > 0 {
		e.outputs = grown(e.outputs, count)
	}
	to.Origins = boundary.ListOf(e.origins)
	to.Outputs = boundary.ListOf(e.outputs)
	to.Metadata = e.writings.lower(count)
}

// grown is a slice of at least this length, with zeros where it had nothing.
func grown[T any](slice []T, length int) []T {
	var zero T
	for len(slice) < length {
		slice = append(slice, zero)
	}
	return slice
}

// end is where the last piece ends.
func end(ends []uint32) uint32 {
	if len(ends) == 0 {
		return 0
	}
	return ends[len(ends)-1]
}

// appendNumber appends a number as JSON has it.
func appendNumber(to []byte, number float64) []byte {
	return strconv.AppendFloat(to, number, 'g', -1, 64)
}
