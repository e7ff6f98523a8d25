package boundary

import (
	"runtime"
	"structs"
	"unsafe"
)

// room is where the host puts what it passes: arguments of exports, and what imports return. Its
// allocator, cabi_realloc, is not written in Go: to enter Go for each list would take time, and a
// garbage collection could begin there. `tidemill-component` adds it to the module; it takes from the
// room as long as that lasts, and calls [moreRoom] when it does not.
type room struct {
	_ structs.HostLayout
	// next and end are what is free.
	next, end uint32
	// isPaused says that no import may be called, because the host is in the middle of passing
	// something. The clock then stands still, and what is printed waits.
	isPaused uint32
	// hasPartialLine says that something was printed that has no end of line yet.
	hasPartialLine uint32
	// exitText is logged if the plugin ends itself.
	exitText List
}

const (
	// leastRoom is enough for most batches.
	leastRoom = 64 << 10
	// mostKept is what is kept from one call to the next; more is left to the garbage collector.
	mostKept = 4 << 20
)

var (
	shared = sharedRoom()
	// chunk is where the room is; full ones before it are still in use by the current call.
	chunk []byte
	full  [][]byte
)

// sharedRoom tells where the room stands, of which the adapter decides.
//
//go:wasmimport wasi_snapshot_preview1 tidemill_room
func sharedRoom() *room

func init() {
	shared.exitText = ListOfString("fatal error: the plugin called os.Exit")
}

// endLines writes what has no end of line yet.
//
//go:wasmimport wasi_snapshot_preview1 tidemill_end_lines
func endLines()

// moreRoom allocates what the room has no place for. The host is in the middle of passing something:
// a garbage collection may begin here, and other goroutines may run, but nobody may call it.
//
//go:wasmexport tidemill_more_room
func moreRoom(align, size uint32) uint32 {
	shared.isPaused = 1
	if chunk != nil {
		full = append(full, chunk)
	}
	needed := int(size) + int(align)
	use(make([]byte, max(needed, min(2*len(chunk), mostKept), leastRoom)))
	start := (shared.next + align - 1) &^ (align - 1)
	shared.next = start + size
	shared.isPaused = 0
	return start
}

func use(next []byte) {
	chunk = next
	shared.next = address(unsafe.Pointer(unsafe.SliceData(chunk)))
	shared.end = shared.next + uint32(len(chunk))
}

// LeaveCall frees what was passed to an export, and everything that imports returned since. What the
// export returns is not touched before the host has read it.
func LeaveCall() {
	if shared.hasPartialLine != 0 {
		endLines()
	}
	if len(full) > 0 {
		clear(full)
		full = full[:0]
	}
	if len(chunk) > mostKept {
		use(nil)
		return
	}
	shared.next = address(unsafe.Pointer(unsafe.SliceData(chunk)))
}

// Mark is what was in use of the room before an import was called.
type Mark struct{ start, next uint32 }

// EnterImport is called before an import. Where the host cannot be called, because another goroutine
// is making room, it waits.
func EnterImport() Mark {
	for shared.isPaused != 0 {
		runtime.Gosched()
	}
	return Mark{address(unsafe.Pointer(unsafe.SliceData(chunk))), shared.next}
}

// Leave frees what the import returned, which was copied.
func (m Mark) Leave() {
	start := address(unsafe.Pointer(unsafe.SliceData(chunk)))
	if m.start == start {
		shared.next = m.next
	} else {
		shared.next = start
	}
}
