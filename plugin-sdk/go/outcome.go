package plugin

import (
	"time"

	"tidemill.dev/plugin/internal/boundary"
)

// Outcome is what became of the messages of a batch. Those it is told nothing of are filtered.
// Messages are decided on in their order.
type Outcome struct {
	// count is how many messages are forwarded while they are the first ones, without a gap.
	count uint32
	// listed is the forwarded messages, once there was a gap.
	listed  []uint32
	outputs []uint16
	forward struct {
		writings writings
		edits    edits
	}
	emissions  Emissions
	rejections []boundary.Rejection
	reasons    []string
	hasStopped bool
	retry      boundary.Retry
	// next is the first message that was not decided on.
	next int
}

// Forwarded is a message that goes on, unchanged but for what is said here.
type Forwarded struct {
	outcome *Outcome
	place   int
}

// Forward lets a message go on.
func (o *Outcome) Forward(m Message) Forwarded {
	message := o.decide(m)
	place := o.forwarded()
	if o.isLast(message) {
		return Forwarded{o, place - 1}
	}
	if len(o.listed) == 0 && message == o.count {
		o.count++
	} else {
		for first := uint32(len(o.listed)); first < o.count; first++ {
			o.listed = append(o.listed, first)
		}
		o.count = 0
		o.listed = append(o.listed, message)
	}
	return Forwarded{o, place}
}

// ForwardAll lets the whole batch go on. Nothing was decided on before.
func (o *Outcome) ForwardAll(batch *Batch) {
	o.decide(Message{index: 0})
	o.count, o.next = uint32(batch.count), batch.count
}

// To sends it to an output.
func (f Forwarded) To(output Output) Forwarded {
	if o := f.open(); output.number != 0 || len(o.outputs) > 0 {
		o.outputs = grown(o.outputs, f.place+1)
		o.outputs[f.place] = output.number
	}
	return f
}

// Set gives it another value of a metadata key; "" removes the key.
func (f Forwarded) Set(key Write, value string) Forwarded {
	f.open().forward.writings.set(key, f.place, value)
	return f
}

// Number makes a place in it a number; NaN leaves the place as it is.
func (f Forwarded) Number(edit Edit, number float64) Forwarded {
	f.open().forward.edits.places[edit.column].setNumber(f.place, number)
	return f
}

// JSON makes a place in it what this text, which must be JSON, stands for.
func (f Forwarded) JSON(edit Edit, text []byte) Forwarded {
	f.open().forward.edits.places[edit.column].setText(f.place, text)
	return f
}

// Remove removes a place from it.
func (f Forwarded) Remove(edit Edit) Forwarded { return f.JSON(edit, nil) }

// open gives the outcome, of which this must be the last forwarded message.
func (f Forwarded) open() *Outcome {
	if f.place != f.outcome.forwarded()-1 {
		panic("a forwarded message is complete when the next one is forwarded")
	}
	return f.outcome
}

// Emit begins a new message that came from this one. It inherits its metadata.
func (o *Outcome) Emit(m Message) Emission {
	origin := o.decide(m)
	emission := o.emissions.begin(!m.IsText())
	o.emissions.origins = append(o.emissions.origins, origin)
	return emission
}

// Reject refuses a message and takes back what was told of it. What becomes of it, the transform's
// on_error says.
func (o *Outcome) Reject(m Message, reason string) {
	rejection := boundary.Rejection{Message: o.takeBack(m), Reason: o.reason(reason)}
	o.rejections = append(o.rejections, rejection)
}

// Retry says that a message cannot be decided on yet, and takes back what was told of it. The host
// keeps it and all that follow, which must not be decided on, and offers them again after the time; one
// below 0 is 0.
func (o *Outcome) Retry(m Message, reason string, after time.Duration) {
	message := o.takeBack(m)
	o.hasStopped = true
	o.retry = boundary.Retry{Message: message, Reason: o.reason(reason), AfterMS: boundary.Milliseconds(after)}
}

// reason is a text as it crosses, which is kept until it has. Bytes that are not UTF-8 are replaced.
func (o *Outcome) reason(text string) boundary.List {
	text = boundary.Text(text)
	o.reasons = append(o.reasons, text)
	return boundary.ListOfString(text)
}

// Stopped tells whether a message is to be retried, after which nothing more is decided on.
func (o *Outcome) Stopped() bool { return o.hasStopped }

// decide is the number of a message, which no later one was decided on before.
func (o *Outcome) decide(m Message) uint32 {
	if o.hasStopped {
		panic("nothing is decided on after a message that is to be retried")
	}
	if m.index+1 < o.next {
		panic("messages are decided on in their order")
	}
	o.next = m.index + 1
	return uint32(m.index)
}

func (o *Outcome) takeBack(m Message) uint32 {
	message := o.decide(m)
	o.emissions.takeBack(message)
	if o.isLast(message) {
		if len(o.listed) > 0 {
			o.listed = o.listed[:len(o.listed)-1]
		} else {
			o.count--
		}
		o.keep(o.forwarded())
	}
	return message
}

// forwarded is how many messages go on.
func (o *Outcome) forwarded() int {
	return int(o.count) + len(o.listed)
}

// isLast tells whether a message was forwarded, and none after it.
func (o *Outcome) isLast(message uint32) bool {
	if len(o.listed) > 0 {
		return o.listed[len(o.listed)-1] == message
	}
	return o.count == message+1
}

// keep forgets what was said of forwarded messages from this number on.
func (o *Outcome) keep(count int) {
	o.outputs = o.outputs[:min(count, len(o.outputs))]
	o.forward.writings.keep(count)
	o.forward.edits.keep(count)
}

// reset forgets everything but the memory that it takes.
func (o *Outcome) reset(setup *Setup) {
	o.count, o.listed = 0, o.listed[:0]
	o.keep(0)
	o.forward.writings.resize(len(setup.writes))
	o.forward.edits.resize(len(setup.edits))
	o.emissions.reset(len(setup.writes))
	clear(o.reasons)
	o.rejections, o.reasons = o.rejections[:0], o.reasons[:0]
	o.hasStopped, o.next = false, 0
}

// lower is the outcome as it crosses.
func (o *Outcome) lower(batch *Batch, to *boundary.Outcome) {
	forwarded := o.forwarded()
	switch forwarded {
	case 0:
		to.Forward.Value = boundary.ForwardNothing
	case batch.count:
		to.Forward.Value = boundary.ForwardAll
	default:
		for first := uint32(0); first < o.count; first++ {
			o.listed = append(o.listed, first)
		}
		o.count = 0
		to.Forward.Value = boundary.ForwardThese
		to.Forwarded = boundary.ListOf(o.listed)
	}
	if len(o.outputs) > 0 {
		o.outputs = grown(o.outputs, forwarded)
	}
	to.ForwardOutputs = boundary.ListOf(o.outputs)
	to.ForwardMetadata = o.forward.writings.lower(forwarded)
	to.Edits = o.forward.edits.lower(forwarded)
	to.HasEmissions.Value = boundary.None
	if o.emissions.Len() > 0 {
		to.HasEmissions.Value = boundary.Some
		o.emissions.lower(&to.Emissions)
	}
	to.Rejections = boundary.ListOf(o.rejections)
	to.HasRetry.Value = boundary.None
	if o.hasStopped {
		to.HasRetry.Value = boundary.Some
		to.Retry = o.retry
	}
}
