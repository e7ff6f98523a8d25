// Package boundary is what crosses between the host and the guest, as it lies in memory: the layouts
// that the component model gives to the records of wit/transform.wit, and the room in which the host
// puts what it passes.
//
// Addresses have 32 bits there and 64 in Go, so that pointers cross as [List]. Nothing here keeps
// what it points to alive.
package boundary

import (
	"strings"
	"structs"
	"time"
	"unsafe"
)

// List is a list or a string: where it is and how long.
type List struct {
	_         structs.HostLayout
	data, len uint32
}

// Tag says which case of a variant it is, or whether an option is something.
type Tag struct {
	_     structs.HostLayout
	Value uint8
	_     [3]byte
}

// The cases of an option.
const (
	None = 0
	Some = 1
)

// OptionList is an option of a list.
type OptionList struct {
	_    structs.HostLayout
	Tag  Tag
	List List
}

// Packed is bytes in a row, where each piece ends, and one byte a piece that says what is special
// about it: the records packed, optional-texts and, without the last, texts.
type Packed struct {
	_          structs.HostLayout
	Data, Ends List
	Marks      OptionList
}

// Payloads is the variant payloads.
type Payloads struct {
	_      structs.HostLayout
	Tag    Tag
	Packed Packed
}

// PayloadsPacked is the only case that a plugin gets which asked for it.
const PayloadsPacked = 0

// Column is the variant column: a text or texts of a metadata key, or the values of a field.
type Column struct {
	_          structs.HostLayout
	Tag        Tag
	Data, Ends List
	_          [16]byte
}

// Field is the values of a column that is one of a field.
func (c *Column) Field() *Values {
	return (*Values)(unsafe.Pointer(&c.Data))
}

// Writing is the variant writing.
type Writing struct {
	_          structs.HostLayout
	Tag        Tag
	Data, Ends List
}

// The cases of column that a plugin gets which asked for the form packed.
const (
	ColumnSame   = 0
	ColumnPacked = 1
)

// The cases of writing that are used.
const (
	WritingInherit = 0
	WritingPacked  = 2
	WritingSparse  = 4
)

// Setting is the record setting.
type Setting struct {
	_     structs.HostLayout
	Index uint32
	Value List
}

// Values is the variant values. The numbers stand where a packed column has its data.
type Values struct {
	_      structs.HostLayout
	Tag    Tag
	Packed Packed
}

// The cases of values that are used.
const (
	ValuesNumbers = 0
	ValuesPacked  = 1
)

// Emissions is the record emissions.
type Emissions struct {
	_        structs.HostLayout
	Payloads Payloads
	Origins  List
	Outputs  List
	Metadata List
}

// Rejection is the record rejection.
type Rejection struct {
	_       structs.HostLayout
	Message uint32
	Reason  List
}

// Outcome is the record outcome.
type Outcome struct {
	_               structs.HostLayout
	Forward         Tag
	Forwarded       List
	ForwardOutputs  List
	ForwardMetadata List
	Edits           List
	HasEmissions    Tag
	Emissions       Emissions
	Rejections      List
	HasRetry        Tag
	Retry           Retry
}

// The cases of forward.
const (
	ForwardNothing = 0
	ForwardAll     = 1
	ForwardThese   = 2
)

// Retry is the record retry.
type Retry struct {
	_       structs.HostLayout
	Message uint32
	Reason  List
	AfterMS uint32
}

// Field is the record field.
type Field struct {
	_       structs.HostLayout
	Pointer List
	Kind    Tag
}

// Description is the record description.
type Description struct {
	_                               structs.HostLayout
	Outputs, Reads, Writes          List
	Fields                          List
	Edits                           List
	OnlyJSON, Form, Payloads, Times uint8
	TickMS                          uint32
	Options                         List
}

// FormPacked is the form that the SDK asks for.
const FormPacked = 0

// Pair is a tuple of two strings.
type Pair struct {
	_           structs.HostLayout
	Name, Value List
}

// Result is a result whose error is a string; T is what it is otherwise, no shorter than a string.
type Result[T any] struct {
	_     structs.HostLayout
	Tag   Tag
	Value T
}

// The cases of a result.
const (
	OK  = 0
	Err = 1
)

// Fail makes a result an error. Its text lies where the value would.
func (r *Result[T]) Fail(text string) {
	r.Tag.Value = Err
	*(*List)(unsafe.Pointer(&r.Value)) = ListOfString(text)
}

// ListOf is a slice as it crosses.
func ListOf[T any](slice []T) List {
	return List{data: address(unsafe.Pointer(unsafe.SliceData(slice))), len: uint32(len(slice))}
}

// ListOfString is a string as it crosses.
func ListOfString(text string) List {
	return List{data: address(unsafe.Pointer(unsafe.StringData(text))), len: uint32(len(text))}
}

// ListAt is a list out of its two halves, as it is passed to a function.
func ListAt(data, len uint32) List {
	return List{data: data, len: len}
}

// OptionAt is an option of a list out of its three parts, as it is passed to a function.
func OptionAt(tag, data, len uint32) OptionList {
	return OptionList{Tag: Tag{Value: uint8(tag)}, List: ListAt(data, len)}
}

// SliceOf is a list that crossed, without copying it.
func SliceOf[T any](list List) []T {
	if list.len == 0 {
		return nil
	}
	return unsafe.Slice((*T)(pointer(list.data)), list.len)
}

// StringOf is a copy of a string that crossed.
func StringOf(list List) string {
	return string(SliceOf[byte](list))
}

// Text is a text as it may cross: bytes that are not UTF-8, which would be a trap, are replaced.
func Text(text string) string {
	return strings.ToValidUTF8(text, "\uFFFD")
}

// Milliseconds is a time as it crosses; one below 0 is 0.
func Milliseconds(d time.Duration) uint32 {
	return uint32(min(max(d.Milliseconds(), 0), 1<<32-1))
}

func address(p unsafe.Pointer) uint32 {
	return uint32(uintptr(p))
}

func pointer(address uint32) unsafe.Pointer {
	return unsafe.Add(unsafe.Pointer(nil), address)
}
