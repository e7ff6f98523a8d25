package connector

import (
	"errors"
	"structs"
	"time"
	"unsafe"

	"tidemill.dev/plugin/internal/boundary"
	"tidemill.dev/plugin/internal/leftover"
)

// The instance, and the places where its calls keep what they give.
var (
	instance  Connector
	described boundary.Result[description]
	answered  struct {
		_     structs.HostLayout
		tag   boundary.Tag
		value [5]boundary.List // the record dial, or the shorter record refusal
	}
	ticked boundary.Result[boundary.List]
	// What the answer points to, until the host has read it.
	kept struct {
		dial     Dial
		headers  []boundary.Pair
		names    []boundary.List
		messages []payload
		options  []boundary.Pair
		text     string
	}
)

// description is the record connector-description.
type description struct {
	_       structs.HostLayout
	tickMS  uint32
	options boundary.List
}

// dial is the record dial.
type dial struct {
	_                                                  structs.HostLayout
	url, headers, subprotocols, firstMessages, options boundary.List
}

// refusal is the record refusal.
type refusal struct {
	_        structs.HostLayout
	reason   boundary.List
	hasRetry boundary.Tag
	retryMS  uint32
}

// payload is the variant payload.
type payload struct {
	_    structs.HostLayout
	tag  boundary.Tag
	data boundary.List
}

// payloadBinary is its case that is not text.
const payloadBinary = 1

// attempt is the record attempt.
type attempt struct {
	_       structs.HostLayout
	dial    dial
	number  uint32
	_       [4]byte
	hasLast boundary.Tag
	_       [4]byte
	last    ending
	facts   boundary.List
}

// ending is the record ending.
type ending struct {
	_                 structs.HostLayout
	outcome, detail   boundary.List
	status, closeCode optionUint16
	lastedMS          uint64
}

// optionUint16 is an option of a u16.
type optionUint16 struct {
	_     structs.HostLayout
	tag   uint8
	_     uint8
	value uint16
}

//go:wasmexport tidemill:plugin/dialler@0.1.0#init
func exportInit(configData, configLen, factsData, factsLen uint32) unsafe.Pointer {
	defer boundary.LeaveCall()
	if makeConnector == nil {
		described.Fail("package main has no init function that calls connector.Export")
		return unsafe.Pointer(&described)
	}
	setup := Setup{
		Config: []byte(boundary.StringOf(boundary.ListAt(configData, configLen))),
		Facts:  factsOf(boundary.ListAt(factsData, factsLen)),
	}
	var err error
	if instance, err = made(&setup); err != nil {
		described.Fail(text(err))
		return unsafe.Pointer(&described)
	}
	leftover.Note()
	described.Tag.Value = boundary.OK
	described.Value = description{tickMS: setup.tickMS}
	return unsafe.Pointer(&described)
}

//go:wasmexport tidemill:plugin/dialler@0.1.0#before-connect
func exportBeforeConnect(asked unsafe.Pointer) unsafe.Pointer {
	defer boundary.LeaveCall()
	given := (*attempt)(asked)
	kept.dial = lifted(&given.dial)
	err := instance.BeforeConnect(&kept.dial, attemptOf(given))
	if err == nil {
		err = leftover.Of("BeforeConnect")
	}
	if err == nil {
		err = kept.dial.check()
	}
	if err != nil {
		answered.tag.Value = boundary.Err
		refuse((*refusal)(unsafe.Pointer(&answered.value)), err)
	} else {
		answered.tag.Value = boundary.OK
		lower((*dial)(unsafe.Pointer(&answered.value)))
	}
	return unsafe.Pointer(&answered)
}

//go:wasmexport tidemill:plugin/dialler@0.1.0#tick
func exportTick(nowUS uint64) unsafe.Pointer {
	defer boundary.LeaveCall()
	ticked.Tag.Value = boundary.OK
	if ticker, ok := instance.(Ticker); ok {
		if err := ticker.Tick(time.UnixMicro(int64(nowUS))); err != nil {
			ticked.Fail(text(err))
		}
	}
	return unsafe.Pointer(&ticked)
}

// text is that of an error, while it crosses.
func text(err error) string {
	kept.text = boundary.Text(err.Error())
	return kept.text
}

func refuse(to *refusal, err error) {
	*to = refusal{reason: boundary.ListOfString(text(err))}
	if later := (*Later)(nil); errors.As(err, &later) {
		to.hasRetry.Value = boundary.Some
		to.retryMS = boundary.Milliseconds(later.After)
	}
}

// lower is the dial as it crosses.
func lower(to *dial) {
	kept.headers, kept.options = pairs(kept.dial.Headers), pairs(kept.dial.Options)
	kept.names = make([]boundary.List, len(kept.dial.Subprotocols))
	for i, name := range kept.dial.Subprotocols {
		kept.names[i] = boundary.ListOfString(name)
	}
	kept.messages = make([]payload, len(kept.dial.FirstMessages))
	for i, message := range kept.dial.FirstMessages {
		kept.messages[i].data = boundary.ListOf(message.Data)
		if message.Binary {
			kept.messages[i].tag.Value = payloadBinary
		}
	}
	*to = dial{
		url:           boundary.ListOfString(kept.dial.URL),
		headers:       boundary.ListOf(kept.headers),
		subprotocols:  boundary.ListOf(kept.names),
		firstMessages: boundary.ListOf(kept.messages),
		options:       boundary.ListOf(kept.options),
	}
}

func pairs(texts [][2]string) []boundary.Pair {
	pairs := make([]boundary.Pair, len(texts))
	for i, pair := range texts {
		pairs[i] = boundary.Pair{Name: boundary.ListOfString(pair[0]), Value: boundary.ListOfString(pair[1])}
	}
	return pairs
}

// lifted is a dial that crossed, as a copy: the connector may keep it.
func lifted(from *dial) Dial {
	to := Dial{URL: boundary.StringOf(from.url), Headers: textsOf(from.headers), Options: textsOf(from.options)}
	for _, name := range boundary.SliceOf[boundary.List](from.subprotocols) {
		to.Subprotocols = append(to.Subprotocols, boundary.StringOf(name))
	}
	for _, message := range boundary.SliceOf[payload](from.firstMessages) {
		data := []byte(boundary.StringOf(message.data))
		to.FirstMessages = append(to.FirstMessages, Message{data, message.tag.Value == payloadBinary})
	}
	return to
}

func textsOf(list boundary.List) (texts [][2]string) {
	for _, pair := range boundary.SliceOf[boundary.Pair](list) {
		texts = append(texts, [2]string{boundary.StringOf(pair.Name), boundary.StringOf(pair.Value)})
	}
	return texts
}

func factsOf(list boundary.List) map[string]string {
	facts := make(map[string]string)
	for _, fact := range textsOf(list) {
		facts[fact[0]] = fact[1]
	}
	return facts
}

func attemptOf(from *attempt) Attempt {
	to := Attempt{Number: int(from.number), Facts: factsOf(from.facts)}
	if from.hasLast.Value == boundary.Some {
		to.Last = &Ending{
			Outcome:   boundary.StringOf(from.last.outcome),
			Detail:    boundary.StringOf(from.last.detail),
			Status:    numberOf(from.last.status),
			CloseCode: numberOf(from.last.closeCode),
			Lasted:    time.Duration(min(from.last.lastedMS, mostMS)) * time.Millisecond,
		}
	}
	return to
}

// mostMS is more milliseconds than a connection lasts, and no more than a [time.Duration] has.
const mostMS = 1 << 40

func numberOf(option optionUint16) int {
	if option.tag == boundary.None {
		return 0
	}
	return int(option.value)
}
