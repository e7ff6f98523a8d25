package plugin

import (
	"iter"
	"math"

	"tidemill.dev/plugin/internal/boundary"
)

// Batch is messages in the order in which they came, sliced out of the columns in which they crossed.
// It is only valid until [Plugin].Process returns, and so is everything that is read out of it: what
// is kept must be copied.
type Batch struct {
	count    int
	payloads pieces
	times    []uint64
	metadata []boundary.Column
	fields   []boundary.Column
}

// Message is one message of a batch.
type Message struct {
	batch *Batch
	index int
	bytes []byte
}

// pieces is bytes in a row, where each piece ends, and what is special about some.
type pieces struct {
	data  []byte
	ends  []uint32
	marks []byte
}

// Len is how many messages there are; at least one.
func (b *Batch) Len() int { return b.count }

// Messages are the messages, in order.
func (b *Batch) Messages() iter.Seq[Message] {
	return func(yield func(Message) bool) {
		if len(b.payloads.ends) == 0 {
			for index := range b.count {
				if !yield(Message{b, index, nil}) {
					return
				}
			}
			return
		}
		var start uint32
		for index, end := range b.payloads.ends {
			if !yield(Message{b, index, b.payloads.data[start:end:end]}) {
				return
			}
			start = end
		}
	}
}

// Message is the message at an index.
func (b *Batch) Message(index int) Message {
	m := Message{b, index, nil}
	if len(b.payloads.ends) > 0 {
		m.bytes = b.payloads.piece(index)
	}
	return m
}

// Payloads are the bytes of all messages in a row, and where each ends.
func (b *Batch) Payloads() (data []byte, ends []uint32) { return b.payloads.data, b.payloads.ends }

// Times are when the messages were received, in microseconds since the Unix epoch; nil unless
// [Setup.Times] asked for them.
func (b *Batch) Times() []uint64 { return b.times }

// Numbers are the values of a field, one a message; NaN where it is absent or no number.
func (b *Batch) Numbers(field Number) []float64 {
	return boundary.SliceOf[float64](b.fields[field.column].Field().Packed.Data)
}

// Index is the message's place in the batch.
func (m Message) Index() int { return m.index }

// Bytes are its payload, without copying it; nil if the plugin asked for none.
func (m Message) Bytes() []byte { return m.bytes }

// String is a copy of its payload.
func (m Message) String() string { return string(m.bytes) }

// IsText tells a text message from a binary one. Text is always UTF-8.
func (m Message) IsText() bool {
	marks := m.batch.payloads.marks
	return len(marks) == 0 || marks[m.index] == 0
}

// Received is when it was received, in microseconds since the Unix epoch; 0 unless [Setup.Times] asked
// for it.
func (m Message) Received() uint64 {
	if len(m.batch.times) == 0 {
		return 0
	}
	return m.batch.times[m.index]
}

// Metadata is the value of a metadata key; empty if the message does not have it.
func (m Message) Metadata(key Read) []byte {
	column := &m.batch.metadata[key.column]
	if column.Tag.Value == boundary.ColumnSame {
		return boundary.SliceOf[byte](column.Data)
	}
	return pieces{boundary.SliceOf[byte](column.Data), boundary.SliceOf[uint32](column.Ends), nil}.piece(m.index)
}

// Number is the value of a field; NaN if it is absent or no number.
func (m Message) Number(field Number) float64 {
	numbers := m.batch.Numbers(field)
	if len(numbers) == 0 {
		return math.NaN()
	}
	return numbers[m.index]
}

// Text is the value of a field, and whether it has one.
func (m Message) Text(field Text) (value []byte, ok bool) {
	packed := &m.batch.fields[field.column].Field().Packed
	if absent := packed.Marks; absent.Tag.Value == boundary.Some {
		if marks := boundary.SliceOf[byte](absent.List); marks[m.index] != 0 {
			return nil, false
		}
	}
	texts := pieces{boundary.SliceOf[byte](packed.Data), boundary.SliceOf[uint32](packed.Ends), nil}
	return texts.piece(m.index), true
}

func (p pieces) piece(index int) []byte {
	var start uint32
	if index > 0 {
		start = p.ends[index-1]
	}
	end := p.ends[index]
	return p.data[start:end:end]
}

// read makes the batch of what crossed; reads is how many of the columns are metadata.
func (b *Batch) read(count uint32, payloads *boundary.Packed, times, columns boundary.OptionList, reads int) {
	all := optional[boundary.Column](columns)
	*b = Batch{count: int(count), times: optional[uint64](times)}
	if len(all) > 0 {
		b.metadata, b.fields = all[:reads], all[reads:]
	}
	if payloads != nil {
		b.payloads = pieces{
			data:  boundary.SliceOf[byte](payloads.Data),
			ends:  boundary.SliceOf[uint32](payloads.Ends),
			marks: optional[byte](payloads.Marks),
		}
	}
}

func optional[T any](option boundary.OptionList) []T {
	if option.Tag.Value == boundary.None {
		return nil
	}
	return boundary.SliceOf[T](option.List)
}
