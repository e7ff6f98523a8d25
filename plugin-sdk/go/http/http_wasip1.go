package http

import (
	"runtime"
	"strconv"
	"structs"
	"time"
	"unsafe"

	"tidemill.dev/plugin/internal/boundary"
)

//go:wasmimport tidemill:plugin/http@0.1.0 send-all
func importSendAll(requests unsafe.Pointer, count uint32, result unsafe.Pointer)

// returned is where the import puts what it returns. Not on a stack, which moves if it has to grow while
// the host is passing something.
var returned boundary.List

// request is the record request.
type request struct {
	_                          structs.HostLayout
	method, url, headers, body boundary.List
	timeoutMS                  uint32
}

// result is a result of the record response and the variant error, of which the larger has 20 bytes.
type result struct {
	_     structs.HostLayout
	tag   boundary.Tag
	_     [4]byte
	value [3]uint64
}

// response is the record response.
type response struct {
	_             structs.HostLayout
	status        uint16
	_             [2]byte
	headers, body boundary.List
}

// failure is the variant error: a text or a number.
type failure struct {
	_    structs.HostLayout
	tag  boundary.Tag
	_    [4]byte
	most uint64
}

// kinds are the cases of the variant error.
var kinds = [...]Kind{Invalid, Denied, Timeout, TooLarge, Failed}

func sendAll(requests []Request) []Answer {
	crossing := make([]request, len(requests))
	headers := make([][]boundary.Pair, len(requests))
	for n := range requests {
		from, to := &requests[n], &crossing[n]
		for _, header := range from.Headers {
			pair := boundary.Pair{Name: boundary.ListOfString(header[0]), Value: boundary.ListOfString(header[1])}
			headers[n] = append(headers[n], pair)
		}
		to.method, to.url = boundary.ListOfString(from.Method), boundary.ListOfString(from.URL)
		to.headers, to.body = boundary.ListOf(headers[n]), boundary.ListOf(from.Body)
		to.timeoutMS = milliseconds(from.Timeout)
	}
	defer boundary.EnterImport().Leave()
	importSendAll(unsafe.Pointer(unsafe.SliceData(crossing)), uint32(len(crossing)), unsafe.Pointer(&returned))
	// What was passed as addresses has to be there until now.
	runtime.KeepAlive(requests)
	runtime.KeepAlive(headers)
	results := boundary.SliceOf[result](returned)
	answers := make([]Answer, len(results))
	for n := range results {
		answers[n] = lifted(&results[n])
	}
	return answers
}

// lifted is an answer, out of the room that is about to be freed.
func lifted(result *result) Answer {
	if result.tag.Value == boundary.Err {
		return Answer{Err: errorOf((*failure)(unsafe.Pointer(&result.value)))}
	}
	from := (*response)(unsafe.Pointer(&result.value))
	to := Response{Status: int(from.status), Body: append([]byte{}, boundary.SliceOf[byte](from.body)...)}
	for _, pair := range boundary.SliceOf[boundary.Pair](from.headers) {
		to.Headers = append(to.Headers, [2]string{boundary.StringOf(pair.Name), boundary.StringOf(pair.Value)})
	}
	return Answer{Response: to}
}

func errorOf(from *failure) *Error {
	kind := kinds[from.tag.Value]
	switch kind {
	case Timeout:
		return &Error{Kind: kind}
	case TooLarge:
		return &Error{kind, strconv.FormatUint(from.most, 10)}
	default:
		return &Error{kind, boundary.StringOf(*(*boundary.List)(unsafe.Pointer(&from.most)))}
	}
}

// milliseconds is a time as it crosses.
func milliseconds(timeout time.Duration) uint32 {
	if timeout <= 0 {
		return 0
	}
	return max(boundary.Milliseconds(timeout), 1)
}
