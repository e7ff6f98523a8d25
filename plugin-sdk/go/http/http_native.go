//go:build !wasip1

package http

// answer stands in for the servers in native tests.
var answer = denied

// AnswerBy has a function answer the requests of native tests, in the place of servers; nil denies all of
// them, as it is at first. An error that is not an [*Error] is one of the kind Failed.
func AnswerBy(function func(Request) (Response, error)) {
	if answer = function; function == nil {
		answer = denied
	}
}

func denied(request Request) (Response, error) {
	return Response{}, &Error{Denied, "the test grants nothing, and " + request.URL + " was asked for"}
}

func sendAll(requests []Request) []Answer {
	answers := make([]Answer, len(requests))
	for n, request := range requests {
		response, err := answer(request)
		if _, ok := err.(*Error); err != nil && !ok {
			err = &Error{Failed, err.Error()}
		}
		answers[n] = Answer{response, err}
	}
	return answers
}
