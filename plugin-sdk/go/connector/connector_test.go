package connector

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func same(t *testing.T, what string, got, expected any) {
	t.Helper()
	if !reflect.DeepEqual(got, expected) {
		t.Errorf("%s: %v is not %v", what, got, expected)
	}
}

func TestADialIsChanged(t *testing.T) {
	dial := Dial{URL: "wss://a.example/feed?a=1&token=old&b=&token", Headers: [][2]string{{"X-Key", "1"}, {"Host-Id", "h"}}}
	dial.SetHeader("x-key", "2")
	same(t, "headers", dial.Headers, [][2]string{{"Host-Id", "h"}, {"x-key", "2"}})
	same(t, "header", []string{dial.Header("X-KEY"), dial.Header("x")}, []string{"2", ""})
	dial.SetQuery("token", "a b+ż/~-._")
	same(t, "url", dial.URL, "wss://a.example/feed?a=1&b=&token=a%20b%2B%C5%BC%2F~-._")
	other := Dial{URL: "wss://a.example"}
	other.SetQuery("k", "v")
	same(t, "a first value", other.URL, "wss://a.example?k=v")
	dial.SendFirst("one")
	same(t, "first", dial.FirstMessages, []Message{{Data: []byte("one")}})
}

func TestWhatIsNoTextIsNotDialled(t *testing.T) {
	good := Dial{URL: "ż", FirstMessages: []Message{{[]byte("\xff"), true}}}
	same(t, "good", good.check(), error(nil))
	for _, bad := range []Dial{
		{URL: "\xff"},
		{Headers: [][2]string{{"a", "\xff"}}},
		{Options: [][2]string{{"\xff", ""}}},
		{Subprotocols: []string{"\xff"}},
		{FirstMessages: []Message{{Data: []byte("\xff")}}},
	} {
		if err := bad.check(); err == nil || !strings.Contains(err.Error(), "not UTF-8") {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestLaterIsFoundInWhatIsAroundIt(t *testing.T) {
	err := fmt.Errorf("no token: %w", &Later{"too many requests", time.Second})
	var later *Later
	same(t, "later", errors.As(err, &later) && later.After == time.Second, true)
	same(t, "text", err.Error(), "no token: too many requests")
}

func TestAConnectorThatIsNoneIsToldSo(t *testing.T) {
	defer func() { makeConnector = nil }()
	for what, connector := range map[string]Connector{"nil": nil, "a function": Func(nil)} {
		makeConnector = nil
		Export(func(*Setup) (Connector, error) { return connector, nil })
		if _, err := made(&Setup{}); err == nil || !strings.Contains(err.Error(), "returned nil in the place of a connector") {
			t.Errorf("%s: %v", what, err)
		}
	}
	makeConnector = nil
	defer func() {
		same(t, "panic", recover(), any("connector.Export takes the function that makes the connector, and was given nil"))
	}()
	Export(nil)
}

func TestTheTimerHasWholeMilliseconds(t *testing.T) {
	setup := Setup{Config: []byte(`{"a":1}`)}
	setup.TickEvery(time.Microsecond)
	same(t, "tick", setup.tickMS, uint32(1))
	same(t, "config", setup.DecodeConfig(&struct{}{}).Error(), "a is not known: there is nothing to configure here")
}
