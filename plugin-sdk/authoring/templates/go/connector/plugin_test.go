package main

import (
	"testing"

	"tidemill.dev/plugin/connector"
)

func TestTheTokenIsInTheHandshake(t *testing.T) {
	dial := connector.Dial{URL: "wss://example.com/"}
	if err := (token{"t0ken"}).BeforeConnect(&dial, connector.Attempt{Number: 1}); err != nil {
		t.Error(err)
	}
	if header := dial.Header("authorization"); header != "Bearer t0ken" {
		t.Errorf("got %q", header)
	}
}
