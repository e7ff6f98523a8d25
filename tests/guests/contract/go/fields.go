package main

import (
	"math"

	"tidemill.dev/plugin"
)

// shown shows the fields of a message, or edits it.
type shown struct {
	order, text plugin.Text
	price       plugin.Number
	values      [2]plugin.Text
	double      plugin.Edit
	notes       [2]plugin.Edit
}

func newShown(setup *plugin.Setup) *shown {
	return &shown{
		price:  setup.Number("/price"),
		order:  setup.Text("/do"),
		text:   setup.Text("/a~1b"),
		values: [2]plugin.Text{setup.JSON("/set/0"), setup.JSON("/set/1")},
		double: setup.Edit("/price"),
		notes:  [2]plugin.Edit{setup.Edit("/note"), setup.Edit("/deep/note")},
	}
}

func (s *shown) decide(m plugin.Message, out *plugin.Outcome) {
	switch order, _ := m.Text(s.order); string(order) {
	case "drop":
	case "show":
		s.show(m, out)
	case "edit":
		// A number that is absent is not a number, and that leaves the place as it is.
		forwarded := out.Forward(m).Number(s.double, 2*m.Number(s.price))
		for i, note := range s.notes {
			switch value, ok := m.Text(s.values[i]); {
			case ok && string(value) == `""`:
				forwarded.Remove(note)
			case ok:
				forwarded.JSON(note, value)
			}
		}
	default:
		out.Forward(m)
	}
}

func (s *shown) show(m plugin.Message, out *plugin.Outcome) {
	emission := out.Emit(m)
	if price := m.Number(s.price); math.IsNaN(price) {
		emission.Text("-")
	} else {
		emission.Int(int64(math.Round(100 * price)))
	}
	for _, field := range []plugin.Text{s.text, s.values[0], s.values[1]} {
		emission.Text("|")
		if value, ok := m.Text(field); ok {
			emission.Bytes(value)
		} else {
			emission.Text("-")
		}
	}
}

// filter forwards by two fields.
type filter struct {
	price  plugin.Number
	symbol plugin.Text
}

func newFilter(setup *plugin.Setup) *filter {
	return &filter{setup.Number("/p"), setup.Text("/s")}
}

func (f *filter) decide(m plugin.Message, out *plugin.Outcome) {
	if symbol, _ := m.Text(f.symbol); m.Number(f.price) > 100 && string(symbol) == "BTCUSDT" {
		out.Forward(m)
	}
}

// symbol emits one field.
type symbol struct {
	symbol plugin.Text
}

func newSymbol(setup *plugin.Setup) *symbol {
	return &symbol{setup.Text("/s")}
}

func (s *symbol) decide(m plugin.Message, out *plugin.Outcome) {
	value, ok := m.Text(s.symbol)
	if !ok {
		value = []byte("-")
	}
	out.Emit(m).Bytes(value)
}

// notional adds what a trade was worth.
type notional struct {
	price, quantity plugin.Number
	notional        plugin.Edit
}

func newNotional(setup *plugin.Setup) *notional {
	return &notional{setup.Number("/p"), setup.Number("/q"), setup.Edit("/notional")}
}

func (n *notional) decide(m plugin.Message, out *plugin.Outcome) {
	out.Forward(m).Number(n.notional, m.Number(n.price)*m.Number(n.quantity))
}
