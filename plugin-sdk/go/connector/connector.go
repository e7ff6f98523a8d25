// Package connector is for plugins of the other kind: a connector has the last word on what an endpoint dials, and may
// fetch a fresh token first.
//
//	package main
//
//	import (
//		"tidemill.dev/plugin/connector"
//		"tidemill.dev/plugin/http"
//	)
//
//	// token has who gives tokens; the key allow of before_connect has to grant it.
//	type token struct {
//		URL string `json:"url"`
//	}
//
//	func init() {
//		connector.Export(func(setup *connector.Setup) (connector.Connector, error) {
//			var token token
//			err := setup.DecodeConfig(&token)
//			return token, err
//		})
//	}
//
//	func (token token) BeforeConnect(dial *connector.Dial, _ connector.Attempt) error {
//		answer, err := http.Post(token.URL, nil)
//		if err == nil {
//			err = answer.Success()
//		}
//		dial.SetHeader("Authorization", "Bearer "+answer.Text())
//		return err
//	}
//
//	func main() {}
//
// An endpoint names its connector as before_connect. One instance answers dial after dial, so that it may keep what
// lasts longer; a fault ends it, and counts as a dial that has failed. What is dialled otherwise than the configuration
// says is a secret to the host: it is not shown anywhere.
package connector

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"tidemill.dev/plugin/internal/boundary"
	"tidemill.dev/plugin/internal/configuration"
)

// Connector is asked before each dial of an endpoint.
type Connector interface {
	// BeforeConnect changes what is about to be dialled, which is what the configuration says, as it should be. After an
	// error nothing is dialled now, and the endpoint tries again by its reconnect; [Later] says when at the earliest. A
	// panic is a fault.
	BeforeConnect(dial *Dial, attempt Attempt) error
}

// Func is a connector that needs no more.
type Func func(dial *Dial, attempt Attempt) error

// BeforeConnect calls the function.
func (change Func) BeforeConnect(dial *Dial, attempt Attempt) error { return change(dial, attempt) }

// Ticker is a connector that does something at the interval of [Setup.TickEvery] while the connection stands, for what
// has to be kept alive. Time is the host's. An error is logged, and the connection stands.
type Ticker interface {
	Tick(now time.Time) error
}

// Setup is what a connector is made from.
type Setup struct {
	// Config is the config table of before_connect as JSON.
	Config []byte
	// Facts say where the connector runs: "contract" and "host" (versions), "pipeline" and "endpoint".
	Facts map[string]string

	tickMS uint32
}

// DecodeConfig reads the configuration into the struct that to points to. A key that the struct does not have is
// refused, and so is a value of another type.
func (s *Setup) DecodeConfig(to any) error { return configuration.Decode(s.Config, to) }

// TickEvery asks for [Ticker] this often, in whole milliseconds and at least one.
func (s *Setup) TickEvery(interval time.Duration) {
	s.tickMS = boundary.Milliseconds(max(interval, time.Millisecond))
}

// Dial is what is dialled.
type Dial struct {
	// URL is the address, of the scheme ws or wss.
	URL string
	// Headers are names and values of the handshake's headers, beside those that every handshake has.
	Headers [][2]string
	// Subprotocols are those that are offered, the most wanted first.
	Subprotocols []string
	// FirstMessages are sent as soon as the connection is there, in this order.
	FirstMessages []Message
	// Options are room to grow, names and values.
	Options [][2]string
}

// Message is a message that is sent first: text, or binary.
type Message struct {
	Data   []byte
	Binary bool
}

// Header is the value of a header, whose name has any case; "" if there is none.
func (d *Dial) Header(name string) string {
	for _, header := range d.Headers {
		if strings.EqualFold(header[0], name) {
			return header[1]
		}
	}
	return ""
}

// SetHeader sets a header, in the place of one of this name.
func (d *Dial) SetHeader(name, value string) {
	d.Headers = slices.DeleteFunc(d.Headers, func(header [2]string) bool { return strings.EqualFold(header[0], name) })
	d.Headers = append(d.Headers, [2]string{name, value})
}

// SetQuery sets a value of the url's query, in the place of one of this name; both are percent-encoded.
func (d *Dial) SetQuery(name, value string) {
	base, query, _ := strings.Cut(d.URL, "?")
	var pairs []string
	for pair := range strings.SplitSeq(query, "&") {
		if known, _, _ := strings.Cut(pair, "="); pair != "" && known != encoded(name) {
			pairs = append(pairs, pair)
		}
	}
	d.URL = base + "?" + strings.Join(append(pairs, encoded(name)+"="+encoded(value)), "&")
}

// SendFirst adds a text that is sent as soon as the connection is there.
func (d *Dial) SendFirst(text string) {
	d.FirstMessages = append(d.FirstMessages, Message{Data: []byte(text)})
}

// encoded percent-encodes all but the characters that RFC 3986 leaves alone everywhere.
func encoded(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }

// check refuses what is no text where the contract has text.
func (d *Dial) check() error {
	isText := utf8.ValidString(d.URL)
	for _, pair := range slices.Concat(d.Headers, d.Options) {
		isText = isText && utf8.ValidString(pair[0]) && utf8.ValidString(pair[1])
	}
	for _, subprotocol := range d.Subprotocols {
		isText = isText && utf8.ValidString(subprotocol)
	}
	for _, message := range d.FirstMessages {
		isText = isText && (message.Binary || utf8.Valid(message.Data))
	}
	if !isText {
		return errors.New("what is to be dialled is not UTF-8: its url, headers, subprotocols and first texts must be")
	}
	return nil
}

// Attempt says which dial it is.
type Attempt struct {
	// Number is 1 for the first since the last connection, or since the start.
	Number int
	// Last is what the last one came to; nil at the first.
	Last *Ending
	// Facts are more about the attempt, names and values.
	Facts map[string]string
}

// Ending is what a dial came to.
type Ending struct {
	// Outcome is the word that the host's metrics have for it, such as "closed", "refused" or "timeout".
	Outcome string
	// Detail is the same in a sentence.
	Detail string
	// Status is the HTTP status, if the handshake was refused with one, else 0.
	Status int
	// CloseCode is the code of the close frame, if one ended the connection, else 0.
	CloseCode int
	// Lasted is how long the connection lasted; 0 where none was made.
	Lasted time.Duration
}

// Later is an error of [Connector].BeforeConnect that says when to try again: not before.
type Later struct {
	// Reason is why nothing is to be dialled now.
	Reason string
	// After is how long nothing is to be dialled, in whole milliseconds; a time below 0 is 0.
	After time.Duration
}

// Error is the reason.
func (l *Later) Error() string { return l.Reason }

// makeConnector is what [Export] was given.
var makeConnector func(*Setup) (Connector, error)

// Export says how the connector is made. It is called once, from an init function of package main. The function may
// refuse the configuration with an error, which the person who wrote it sees; what may fail for a while belongs into
// BeforeConnect.
func Export(connector func(setup *Setup) (Connector, error)) {
	if connector == nil {
		panic("connector.Export takes the function that makes the connector, and was given nil")
	}
	if makeConnector != nil {
		// A build looks for this text: it is not there where nothing calls this function.
		panic("connector.Export is called once")
	}
	makeConnector = connector
}

// made is the connector that the function makes.
func made(setup *Setup) (Connector, error) {
	connector, err := makeConnector(setup)
	if err != nil {
		return nil, err
	}
	change, isFunc := connector.(Func)
	if connector == nil || isFunc && change == nil {
		return nil, errors.New("the function that connector.Export was given has returned nil in the place of a connector")
	}
	return connector, nil
}
