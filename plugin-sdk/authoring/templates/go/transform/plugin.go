// Keeps the trades that are worth more than `above`, with a field more: `notional`, what the trade was worth.
package main

import "tidemill.dev/plugin"

// config is what stands in `config` at the transform.
type config struct {
	Above float64 `json:"above"`
}

func init() {
	plugin.Export(func(setup *plugin.Setup) (plugin.Plugin, error) {
		var config config
		if err := setup.DecodeConfig(&config); err != nil {
			return nil, err
		}
		// What is wanted of each message, and what may be changed in it.
		event, price, quantity := setup.Text("/data/e"), setup.Number("/data/p"), setup.Number("/data/q")
		notional := setup.Edit("/notional")
		setup.OnlyJSON()
		setup.WithoutPayloads()
		// Decides on one message. One that nothing is said of is filtered.
		return plugin.Func(func(m plugin.Message, out *plugin.Outcome) error {
			if name, _ := m.Text(event); string(name) != "trade" {
				return nil
			}
			if value, ok := worth(m.Number(price), m.Number(quantity), config.Above); ok {
				out.Forward(m).Number(notional, value)
			}
			return nil
		}), nil
	})
}

// worth is what a trade was worth, and whether that is enough; a number that is not there is NaN, and never enough.
func worth(price, quantity, above float64) (float64, bool) {
	value := price * quantity
	return value, value > above
}

func main() {}
