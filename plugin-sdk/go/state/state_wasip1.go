package state

import (
	"structs"
	"unsafe"

	"tidemill.dev/plugin/internal/boundary"
)

//go:wasmimport tidemill:plugin/state@0.1.0 get
func importGet(key string, result unsafe.Pointer)

//go:wasmimport tidemill:plugin/state@0.1.0 get-many
func importGetMany(keys unsafe.Pointer, count uint32, result unsafe.Pointer)

//go:wasmimport tidemill:plugin/state@0.1.0 set
func importSet(key string, value unsafe.Pointer, length uint32, result unsafe.Pointer)

//go:wasmimport tidemill:plugin/state@0.1.0 set-many
func importSetMany(changes unsafe.Pointer, count uint32, result unsafe.Pointer)

//go:wasmimport tidemill:plugin/state@0.1.0 delete
func importDelete(key string)

//go:wasmimport tidemill:plugin/state@0.1.0 keys
func importKeys(prefix string, hasAfter uint32, after string, limit uint32, result unsafe.Pointer)

// Where imports put what they return. Not on a stack, which moves if it has to grow while the host is
// passing something.
var (
	gotten   boundary.OptionList
	returned boundary.List
	done     boundary.Result[boundary.List]
)

// change is the record change.
type change struct {
	_     structs.HostLayout
	key   boundary.List
	value boundary.OptionList
	ttlMS uint64
}

func get(key string) ([]byte, bool) {
	defer boundary.EnterImport().Leave()
	importGet(key, unsafe.Pointer(&gotten))
	return copied(gotten)
}

func getMany(keys []string) [][]byte {
	crossing := make([]boundary.List, len(keys))
	for i, key := range keys {
		crossing[i] = boundary.ListOfString(key)
	}
	defer boundary.EnterImport().Leave()
	importGetMany(unsafe.Pointer(unsafe.SliceData(crossing)), uint32(len(crossing)), unsafe.Pointer(&returned))
	values := make([][]byte, len(keys))
	for i, value := range boundary.SliceOf[boundary.OptionList](returned) {
		values[i], _ = copied(value)
	}
	return values
}

func set(key string, value []byte) error {
	defer boundary.EnterImport().Leave()
	importSet(key, unsafe.Pointer(unsafe.SliceData(value)), uint32(len(value)), unsafe.Pointer(&done))
	return failure()
}

func setMany(changes []Change) error {
	crossing := make([]change, len(changes))
	for i, to := range changes {
		crossing[i].key = boundary.ListOfString(to.Key)
		if to.Value != nil {
			crossing[i].value.Tag.Value = boundary.Some
			crossing[i].value.List = boundary.ListOf(to.Value)
		}
		crossing[i].ttlMS = uint64(to.For.Milliseconds())
	}
	defer boundary.EnterImport().Leave()
	importSetMany(unsafe.Pointer(unsafe.SliceData(crossing)), uint32(len(crossing)), unsafe.Pointer(&done))
	return failure()
}

func remove(key string) {
	boundary.EnterImport()
	importDelete(key)
}

func keys(prefix, after string, limit uint32) []string {
	defer boundary.EnterImport().Leave()
	var hasAfter uint32
	if after != "" {
		hasAfter = 1
	}
	importKeys(prefix, hasAfter, after, limit, unsafe.Pointer(&returned))
	list := boundary.SliceOf[boundary.List](returned)
	keys := make([]string, len(list))
	for i, key := range list {
		keys[i] = boundary.StringOf(key)
	}
	return keys
}

// copied is a value that the host passed, out of the room that is about to be freed.
func copied(value boundary.OptionList) ([]byte, bool) {
	if value.Tag.Value == boundary.None {
		return nil, false
	}
	return append([]byte{}, boundary.SliceOf[byte](value.List)...), true
}

func failure() error {
	if done.Tag.Value == boundary.OK {
		return nil
	}
	return Error(boundary.StringOf(done.Value))
}
