package plugin

import (
	"structs"
	"time"
	"unsafe"

	"tidemill.dev/plugin/internal/boundary"
	"tidemill.dev/plugin/internal/leftover"
)

// The instance, and the places where its calls keep what they are given and give. They are reused: a
// call allocates nothing once the batches have been as large.
var (
	instance Plugin
	asked    Setup
	batch    Batch
	outcome  Outcome
	timed    Emissions
	state    []byte

	described struct {
		result  boundary.Result[boundary.Description]
		strings [][]boundary.List
		fields  []boundary.Field
		options []boundary.Pair
	}
	processed boundary.Result[boundary.Outcome]
	emitted   boundary.Result[optionEmissions]
	saved     boundary.Result[boundary.OptionList]
	restored  boundary.Result[boundary.List]
)

type optionEmissions struct {
	_         structs.HostLayout
	tag       boundary.Tag
	emissions boundary.Emissions
}

//go:wasmexport tidemill:plugin/transformer@0.1.0#init
func exportInit(configData, configLen, factsData, factsLen uint32) unsafe.Pointer {
	defer boundary.LeaveCall()
	result := &described.result
	if makePlugin == nil {
		result.Fail("package main has no init function that calls plugin.Export")
		return unsafe.Pointer(result)
	}
	asked = Setup{
		Config: []byte(boundary.StringOf(boundary.ListAt(configData, configLen))),
		Facts:  make(map[string]string),
	}
	for _, fact := range boundary.SliceOf[boundary.Pair](boundary.ListAt(factsData, factsLen)) {
		asked.Facts[boundary.StringOf(fact.Name)] = boundary.StringOf(fact.Value)
	}
	var err error
	if instance, err = made(&asked); err != nil {
		result.Fail(errorText(err))
		return unsafe.Pointer(result)
	}
	leftover.Note()
	result.Tag.Value = boundary.OK
	describe(&result.Value)
	return unsafe.Pointer(result)
}

//go:wasmexport tidemill:plugin/transformer@0.1.0#process
func exportProcess(
	count, hasPayloads, _, data, dataLen, ends, endsLen, hasBinary, binary, binaryLen uint32,
	hasTimes, times, timesLen, hasColumns, columns, columnsLen uint32,
) unsafe.Pointer {
	var payloads *boundary.Packed
	if hasPayloads == boundary.Some {
		payloads = &boundary.Packed{
			Data:  boundary.ListAt(data, dataLen),
			Ends:  boundary.ListAt(ends, endsLen),
			Marks: boundary.OptionAt(hasBinary, binary, binaryLen),
		}
	}
	batch.read(
		count, payloads,
		boundary.OptionAt(hasTimes, times, timesLen), boundary.OptionAt(hasColumns, columns, columnsLen),
		len(asked.reads),
	)
	outcome.reset(&asked)
	err := instance.Process(&batch, &outcome)
	if err == nil {
		err = leftover.Of("Process")
	}
	if err != nil {
		processed.Fail(errorText(err))
	} else {
		processed.Tag.Value = boundary.OK
		outcome.lower(&batch, &processed.Value)
	}
	boundary.LeaveCall()
	return unsafe.Pointer(&processed)
}

//go:wasmexport tidemill:plugin/transformer@0.1.0#tick
func exportTick(nowUS uint64) unsafe.Pointer {
	ticker, ok := instance.(Ticker)
	return emit(ok, func() error { return ticker.Tick(time.UnixMicro(int64(nowUS)), &timed) })
}

//go:wasmexport tidemill:plugin/transformer@0.1.0#finish
func exportFinish() unsafe.Pointer {
	finisher, ok := instance.(Finisher)
	return emit(ok, func() error { return finisher.Finish(&timed) })
}

//go:wasmexport tidemill:plugin/transformer@0.1.0#snapshot
func exportSnapshot() unsafe.Pointer {
	defer boundary.LeaveCall()
	saved.Tag.Value, saved.Value.Tag.Value = boundary.OK, boundary.None
	stateful, ok := instance.(Stateful)
	if !ok {
		return unsafe.Pointer(&saved)
	}
	var err error
	if state, err = stateful.Snapshot(); err != nil {
		saved.Fail(errorText(err))
	} else if state != nil {
		saved.Value.Tag.Value, saved.Value.List = boundary.Some, boundary.ListOf(state)
	}
	return unsafe.Pointer(&saved)
}

//go:wasmexport tidemill:plugin/transformer@0.1.0#restore
func exportRestore(data, length, part, parts uint32) unsafe.Pointer {
	defer boundary.LeaveCall()
	restored.Tag.Value = boundary.OK
	stateful, ok := instance.(Stateful)
	if !ok {
		return unsafe.Pointer(&restored)
	}
	lists := boundary.SliceOf[boundary.List](boundary.ListAt(data, length))
	snapshots := make([][]byte, len(lists))
	for i, list := range lists {
		snapshots[i] = boundary.SliceOf[byte](list)
	}
	if err := stateful.Restore(snapshots, Share{part, parts}); err != nil {
		restored.Fail(errorText(err))
	}
	return unsafe.Pointer(&restored)
}

// emit calls what emits without a batch, if the plugin has it.
func emit(has bool, call func() error) unsafe.Pointer {
	defer boundary.LeaveCall()
	timed.reset(len(asked.writes))
	emitted.Tag.Value, emitted.Value.tag.Value = boundary.OK, boundary.None
	if !has {
		return unsafe.Pointer(&emitted)
	}
	if err := call(); err != nil {
		emitted.Fail(errorText(err))
	} else if timed.Len() > 0 {
		emitted.Value.tag.Value = boundary.Some
		timed.lower(&emitted.Value.emissions)
	}
	return unsafe.Pointer(&emitted)
}

// failure is the text of an error while it crosses.
var failure string

func errorText(err error) string {
	failure = boundary.Text(err.Error())
	return failure
}

// describe is what the plugin asked for, as it crosses.
func describe(to *boundary.Description) {
	to.Outputs, to.Reads = stringList(asked.outputs), stringList(asked.reads)
	to.Writes, to.Edits = stringList(asked.writes), stringList(asked.edits)
	described.fields = make([]boundary.Field, len(asked.fields))
	for i, field := range asked.fields {
		described.fields[i].Pointer = boundary.ListOfString(field.pointer)
		described.fields[i].Kind.Value = uint8(field.kind)
	}
	to.Fields = boundary.ListOf(described.fields)
	to.OnlyJSON, to.Payloads, to.Times = flag(asked.onlyJSON), flag(!asked.noPayloads), flag(asked.times)
	to.Form = boundary.FormPacked
	to.TickMS = asked.tickMS
	described.options = nil
	if asked.guards {
		guards := boundary.Pair{Name: boundary.ListOfString("guards"), Value: boundary.ListOfString("true")}
		described.options = append(described.options, guards)
	}
	to.Options = boundary.ListOf(described.options)
}

func stringList(strings []string) boundary.List {
	list := make([]boundary.List, len(strings))
	for i, text := range strings {
		list[i] = boundary.ListOfString(text)
	}
	described.strings = append(described.strings, list)
	return boundary.ListOf(list)
}

func flag(is bool) uint8 {
	if is {
		return 1
	}
	return 0
}
