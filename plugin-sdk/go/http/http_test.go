package http

import (
	"errors"
	"testing"
)

func TestAFunctionAnswersForTheServers(t *testing.T) {
	defer AnswerBy(nil)
	if _, err := Get("https://a.example/"); !errors.As(err, new(*Error)) || err.(*Error).Kind != Denied {
		t.Error(err)
	}
	var asked []Request
	AnswerBy(func(request Request) (Response, error) {
		asked = append(asked, request)
		switch request.URL {
		case "slow":
			return Response{}, &Error{Kind: Timeout}
		case "broken":
			return Response{}, errors.New("cut off")
		}
		headers := [][2]string{{"content-type", "application/json"}}
		return Response{Status: 404, Headers: headers, Body: []byte(`{"risk":7}`)}, nil
	})
	answers := SendAll([]Request{{URL: "slow"}, {URL: "\xff"}, {URL: "broken"}, {URL: "x", JSON: func() {}}, {URL: "y"}})
	for n, text := range []string{
		"the answer took too long",
		"the request is invalid: its method, its url and its headers must be UTF-8",
		"the request failed: cut off",
		"the request is invalid: json: unsupported type: func()",
	} {
		if err := answers[n].Err; err == nil || err.Error() != text {
			t.Errorf("%v is not %s", err, text)
		}
	}
	if last := answers[4]; last.Err != nil || last.OK() || last.Success().Error() != "the answer has the status 404" {
		t.Error(last)
	}
	if len(asked) != 3 || asked[0].Method != "GET" {
		t.Error(asked)
	}
}

func TestAValueIsSentAndReadAsJSON(t *testing.T) {
	defer AnswerBy(nil)
	AnswerBy(func(request Request) (Response, error) {
		if request.Method != "POST" || request.Headers[0] != [2]string{"content-type", "application/json"} {
			t.Error(request)
		}
		return Response{Status: 200, Headers: [][2]string{{"x-id", "7"}}, Body: request.Body}, nil
	})
	answer, err := Post("https://a.example/", map[string]int{"a": 1})
	var got struct{ A int }
	if err != nil || answer.Success() != nil || answer.Decode(&got) != nil || got.A != 1 {
		t.Error(answer, err, got)
	}
	if answer.Text() != `{"a":1}` || answer.Header("X-ID") != "7" || answer.Header("x") != "" {
		t.Error(answer)
	}
}
