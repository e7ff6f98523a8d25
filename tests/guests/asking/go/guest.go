// Asks over HTTP what each message says, as ../src/lib.rs does in Rust: a request a line, a method, a url, headers as
// `name:value` and, after ` # `, a body; several lines are sent side by side.
package main

import (
	"fmt"
	"strings"
	"time"

	"tidemill.dev/plugin"
	"tidemill.dev/plugin/http"
)

type asked struct {
	// TimeoutMS is how long each request may take.
	TimeoutMS int64 `json:"timeout_ms"`
}

func init() {
	plugin.Export(func(setup *plugin.Setup) (plugin.Plugin, error) {
		var config asked
		if err := setup.DecodeConfig(&config); err != nil {
			return nil, err
		}
		return plugin.Func(config.ask), nil
	})
}

func main() {}

func (config asked) ask(m plugin.Message, out *plugin.Outcome) error {
	var requests []http.Request
	for line := range strings.SplitSeq(m.String(), "\n") {
		requests = append(requests, config.request(line))
	}
	var answers []string
	if len(requests) == 1 {
		answers = append(answers, told(http.Send(requests[0])))
	} else {
		for _, answer := range http.SendAll(requests) {
			answers = append(answers, told(answer.Response, answer.Err))
		}
	}
	out.Emit(m).Text(strings.Join(answers, "\n"))
	return nil
}

func (config asked) request(line string) http.Request {
	head, body, _ := strings.Cut(line, " # ")
	words := strings.Split(head, " ")
	request := http.Request{Method: words[0], URL: words[1], Body: []byte(body)}
	request.Timeout = time.Duration(config.TimeoutMS) * time.Millisecond
	for _, header := range words[2:] {
		name, value, _ := strings.Cut(header, ":")
		request.Headers = append(request.Headers, [2]string{name, value})
	}
	return request
}

func told(answer http.Response, err error) string {
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", answer.Status, answer.Text())
}
