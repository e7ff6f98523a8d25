// Package http is requests to the origins that the transform's `allow` grants.
//
// A call waits for its answers, which costs it no running time; [SendAll] sends several requests side by
// side. Of a batch that is tried again after a fault, requests are sent again too. The host adds the
// headers of its configuration, such as Authorization, which the plugin never sees. While state is
// carried, in Snapshot and Restore, every request is denied.
//
// A plugin that imports this package is refused where nothing is granted. In native tests the function of
// [AnswerBy] stands in for the servers.
package http

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Request is what is asked for.
type Request struct {
	// Method is "GET" where it is empty.
	Method string
	// URL is absolute.
	URL string
	// Headers are names and values.
	Headers [][2]string
	// Body may be empty.
	Body []byte
	// JSON, where it is not nil, is sent as JSON in the place of Body, with its content type.
	JSON any
	// Timeout is how long it may take, in whole milliseconds and at least one; 0 is as long as the host
	// allows, which has the last word.
	Timeout time.Duration
}

// Response is what was answered. Statuses of 400 and above are answers, not errors.
type Response struct {
	Status int
	// Headers are names and values.
	Headers [][2]string
	Body    []byte
}

// Answer is what came of one of several requests: a response, or why there is none.
type Answer struct {
	Response
	Err error
}

// Kind says why there is no answer.
type Kind string

// The kinds.
const (
	// Invalid: the request is none, in its method, its URL, a header or its JSON.
	Invalid Kind = "invalid"
	// Denied: the configuration does not grant it, or the address is one that may not be reached.
	Denied Kind = "denied"
	// Timeout: the answer took too long.
	Timeout Kind = "timeout"
	// TooLarge: the answer has more bytes than the host allows.
	TooLarge Kind = "too-large"
	// Failed: the connection failed.
	Failed Kind = "failed"
)

// Error is why there is no answer.
type Error struct {
	Kind Kind
	// Detail is more about it; of TooLarge it is how many bytes the host allows, and of Timeout empty.
	Detail string
}

// Error is the text.
func (e *Error) Error() string {
	switch e.Kind {
	case Timeout:
		return "the answer took too long"
	case TooLarge:
		return "the answer has more than " + e.Detail + " bytes"
	case Failed:
		return "the request failed: " + e.Detail
	default:
		return "the request is " + string(e.Kind) + ": " + e.Detail
	}
}

// Get sends `GET` and waits for the answer, as [Send] does.
func Get(url string) (Response, error) { return Send(Request{URL: url}) }

// Post sends `POST` with a value as JSON and waits for the answer, as [Send] does.
func Post(url string, json any) (Response, error) {
	return Send(Request{Method: "POST", URL: url, JSON: json})
}

// Send sends a request and waits for the answer, whatever its status. An error is an [*Error].
func Send(request Request) (Response, error) {
	answer := SendAll([]Request{request})[0]
	return answer.Response, answer.Err
}

// SendAll sends all requests side by side; the answers are in their order.
func SendAll(requests []Request) []Answer {
	answers := make([]Answer, len(requests))
	var sent []Request
	var places []int
	for place, request := range requests {
		request, err := written(request)
		if err != nil {
			answers[place].Err = &Error{Invalid, err.Error()}
			continue
		}
		sent, places = append(sent, request), append(places, place)
	}
	if len(sent) > 0 {
		for n, answer := range sendAll(sent) {
			answers[places[n]] = answer
		}
	}
	return answers
}

// written is a request with what it leaves out, and with its JSON as its body.
func written(request Request) (Request, error) {
	if request.Method == "" {
		request.Method = "GET"
	}
	if request.JSON != nil {
		body, err := json.Marshal(request.JSON)
		if err != nil {
			return request, err
		}
		request.Headers = append(request.Headers[:len(request.Headers):len(request.Headers)], [2]string{"content-type", "application/json"})
		request.Body, request.JSON = body, nil
	}
	if !isText(request) {
		return request, fmt.Errorf("its method, its url and its headers must be UTF-8")
	}
	return request, nil
}

// isText tells whether all that crosses as text is text: anything else would be a trap.
func isText(request Request) bool {
	for _, header := range request.Headers {
		if !utf8.ValidString(header[0]) || !utf8.ValidString(header[1]) {
			return false
		}
	}
	return utf8.ValidString(request.Method) && utf8.ValidString(request.URL)
}

// OK tells whether the status is one of success.
func (r Response) OK() bool { return r.Status >= 200 && r.Status < 300 }

// Success is an error with the status, unless that is one of success.
func (r Response) Success() error {
	if r.OK() {
		return nil
	}
	return fmt.Errorf("the answer has the status %d", r.Status)
}

// Header is the first value of a header, whose name has any case; "" if it has none.
func (r Response) Header(name string) string {
	for _, header := range r.Headers {
		if strings.EqualFold(header[0], name) {
			return header[1]
		}
	}
	return ""
}

// Text is the body as text.
func (r Response) Text() string { return string(r.Body) }

// Decode reads the body as JSON into what to points to.
func (r Response) Decode(to any) error { return json.Unmarshal(r.Body, to) }
