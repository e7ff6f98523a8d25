// The contract's fixture guest in Go, with the SDK: ../README.md says what it does.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"tidemill.dev/plugin"
)

type contract struct {
	commands *commands
	// decide is what becomes of a message by its fields; nil where its text says it.
	decide func(m plugin.Message, out *plugin.Outcome)
	count  uint64
}

func init() {
	plugin.Export(func(setup *plugin.Setup) (plugin.Plugin, error) {
		has := func(word string) bool { return bytes.Contains(setup.Config, []byte(`"`+word+`"`)) }
		if has("refuse") {
			return nil, errors.New("refused, as asked")
		}
		if has("blind") {
			setup.WithoutPayloads()
		}
		if has("json") {
			setup.OnlyJSON()
		}
		if has("guards") {
			setup.Guards()
		}
		setup.TickEvery(50 * time.Millisecond)
		guest := &contract{commands: newCommands(setup, has("observe"))}
		switch {
		case has("fields"):
			guest.decide = newShown(setup).decide
		case has("filter"):
			guest.decide = newFilter(setup).decide
		case has("notional"):
			guest.decide = newNotional(setup).decide
		case has("symbol"):
			guest.decide = newSymbol(setup).decide
		case has("blind"):
			guest.decide = func(m plugin.Message, out *plugin.Outcome) { out.Forward(m) }
		}
		return guest, nil
	})
}

func main() {}

func (guest *contract) Process(batch *plugin.Batch, out *plugin.Outcome) error {
	if guest.decide == nil {
		if err := guest.commands.begin(batch); err != nil {
			return err
		}
	}
	for m := range batch.Messages() {
		guest.count++
		if guest.decide != nil {
			guest.decide(m, out)
		} else {
			guest.commands.obey(m, guest.count, out)
		}
		if out.Stopped() {
			break
		}
	}
	return nil
}

func (guest *contract) Tick(now time.Time, out *plugin.Emissions) error {
	if guest.count > 0 {
		emission := out.Emit().Set(guest.commands.mark, "timer")
		fmt.Fprintf(emission, "tick:%d:%d", now.UnixMicro(), guest.count)
	}
	return nil
}

func (guest *contract) Finish(out *plugin.Emissions) error {
	out.Emit().To(guest.commands.side).Text("finish:").Uint(guest.count)
	return nil
}

func (guest *contract) Snapshot() ([]byte, error) {
	if guest.count == 0 {
		return nil, nil
	}
	return strconv.AppendUint(nil, guest.count, 10), nil
}

func (guest *contract) Restore(snapshots [][]byte, share plugin.Share) error {
	guest.count = 0
	for _, snapshot := range snapshots {
		for line := range bytes.SplitSeq(snapshot, []byte("\n")) {
			key, digits, hasKey := bytes.Cut(line, []byte("="))
			if !hasKey {
				key, digits = nil, line
			}
			count, err := strconv.ParseUint(string(digits), 10, 64)
			if err != nil {
				return errors.New("not a count")
			}
			if hasKey && share.Has(string(key)) || !hasKey && share.Part == 0 {
				guest.count += count
			}
		}
	}
	return nil
}
