// A connector, as ../src/lib.rs is one in Rust: before a later dial it does what the ending of the last says.
package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"tidemill.dev/plugin"
	"tidemill.dev/plugin/connector"
	"tidemill.dev/plugin/http"
)

type dialling struct {
	Key    string `json:"key"`
	TickMS int64  `json:"tick_ms"`
}

func init() {
	connector.Export(func(setup *connector.Setup) (connector.Connector, error) {
		var config dialling
		if err := setup.DecodeConfig(&config); err != nil {
			return nil, err
		}
		if config.Key == "" {
			return nil, errors.New("key is missing, which is a text")
		}
		if config.TickMS > 0 {
			setup.TickEvery(time.Duration(config.TickMS) * time.Millisecond)
		}
		// What a transform has is no part of it.
		plugin.Log(plugin.LevelInfo, "made for "+setup.Facts["endpoint"])
		return config, nil
	})
}

func main() {}

func (config dialling) BeforeConnect(dial *connector.Dial, attempt connector.Attempt) error {
	last := attempt.Last
	if last == nil {
		dial.SetHeader("Authorization", "Bearer "+config.Key)
		dial.SendFirst("hello żółw")
		return nil
	}
	switch order, argument, _ := strings.Cut(last.Detail, ":"); order {
	case "told":
		numbers := fmt.Sprint(last.Status, last.CloseCode, last.Lasted.Milliseconds())
		dial.SetHeader("X-Told", fmt.Sprintf("%d %s %s", attempt.Number, last.Outcome, numbers))
	case "url":
		dial.URL = argument
	case "ask":
		answer, err := http.Get(argument)
		dial.SetHeader("X-Answer", answer.Text())
		return err
	case "later":
		return &connector.Later{Reason: argument, After: 250 * time.Millisecond}
	default:
		return errors.New(argument)
	}
	return nil
}

func (config dialling) Tick(now time.Time) error {
	if now.UnixMicro()%2 != 0 {
		return fmt.Errorf("%d is odd", now.UnixMicro())
	}
	return nil
}
