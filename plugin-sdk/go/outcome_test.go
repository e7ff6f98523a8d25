package plugin

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// messages is a batch of text messages.
func messages(texts ...string) *Batch {
	batch := &Batch{count: len(texts)}
	for _, text := range texts {
		batch.payloads.data = append(batch.payloads.data, text...)
		batch.payloads.ends = append(batch.payloads.ends, uint32(len(batch.payloads.data)))
	}
	return batch
}

// decided is what a function decides on a batch, by a plugin that writes two keys and edits two places.
func decided(batch *Batch, decide Func) *Outcome {
	outcome := &Outcome{}
	outcome.reset(&Setup{writes: []string{"a", "b"}, edits: []string{"/x", "/y"}})
	if err := decide.Process(batch, outcome); err != nil {
		panic(err)
	}
	return outcome
}

func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// forwarded is which messages go on.
func forwarded(o *Outcome) []uint32 {
	all := []uint32{}
	for first := range o.count {
		all = append(all, first)
	}
	return append(all, o.listed...)
}

func TestMessagesAreSlicesOfTheBatch(t *testing.T) {
	batch := messages("one", "", "three")
	var texts []string
	for m := range batch.Messages() {
		texts = append(texts, m.String())
		same(t, "by index", batch.Message(m.Index()).String(), m.String())
	}
	same(t, "texts", texts, []string{"one", "", "three"})
	same(t, "capacity", cap(batch.Message(0).Bytes()), 3)
}

func TestForwardedMessagesAreCountedUntilThereIsAGap(t *testing.T) {
	batch := messages("1", "2", "3", "4")
	all := decided(batch, func(m Message, out *Outcome) error {
		out.Forward(m)
		out.Forward(m)
		return nil
	})
	same(t, "count", all.count, 4)
	same(t, "listed", len(all.listed), 0)
	gap := decided(batch, func(m Message, out *Outcome) error {
		if m.Index() != 1 {
			out.Forward(m)
		}
		return nil
	})
	same(t, "with a gap", forwarded(gap), []uint32{0, 2, 3})
}

func TestARejectedMessageTakesBackWhatWasToldOfIt(t *testing.T) {
	batch := messages("1", "2", "3")
	for refused := range 3 {
		outcome := decided(batch, func(m Message, out *Outcome) error {
			number := float64(m.Index())
			out.Forward(m).To(Output{1}).Set(Write{0}, m.String()).Number(Edit{1}, number)
			out.Emit(m).To(Output{2}).Set(Write{1}, "new").Bytes(m.Bytes()).Text("!")
			if m.Index() == refused {
				return errors.New("refused")
			}
			return nil
		})
		var kept []uint32
		var numbers []float64
		var texts string
		for i, text := range []string{"1", "2", "3"} {
			if i != refused {
				kept, numbers, texts = append(kept, uint32(i)), append(numbers, float64(i)), texts+text+"!"
			}
		}
		same(t, "forwarded", forwarded(outcome), kept)
		same(t, "outputs", outcome.outputs, []uint16{1, 1})
		same(t, "metadata", outcome.forward.writings.keys[0].messages, []uint32{0, 1})
		same(t, "edits", outcome.forward.edits.places[1].numbers, numbers)
		same(t, "emissions", string(outcome.emissions.data), texts)
		same(t, "origins", outcome.emissions.origins, kept)
		same(t, "metadata of emissions", outcome.emissions.writings.keys[1].messages, []uint32{0, 1})
		same(t, "reasons", outcome.reasons, []string{"refused"})
		same(t, "rejected", outcome.rejections[0].Message, uint32(refused))
	}
}

func TestAMessageToRetryEndsTheBatch(t *testing.T) {
	outcome := decided(messages("1", "2", "3"), func(m Message, out *Outcome) error {
		out.Emit(m).Bytes(m.Bytes())
		if m.Index() == 1 {
			out.Retry(m, "not there yet", 1500*time.Millisecond)
		}
		return nil
	})
	same(t, "emissions", string(outcome.emissions.data), "1")
	same(t, "message", outcome.retry.Message, 1)
	same(t, "after", outcome.retry.AfterMS, 1500)
}

func TestAnEditIsNumbersUntilATextComes(t *testing.T) {
	batch := messages("1", "2", "3", "4")
	numbers := decided(batch, func(m Message, out *Outcome) error {
		if forwarded := out.Forward(m); m.Index() == 1 {
			forwarded.Number(Edit{0}, 1.5)
		}
		return nil
	})
	edit := &numbers.forward.edits.places[0]
	edit.pad(4)
	same(t, "numbers", edit.numbers[1], 1.5)
	absent := slices.IndexFunc(edit.numbers, func(n float64) bool { return !math.IsNaN(n) })
	same(t, "the only one", []int{absent, len(edit.numbers)}, []int{1, 4})

	mixed := decided(batch, func(m Message, out *Outcome) error {
		switch forwarded := out.Forward(m); m.Index() {
		case 0:
			forwarded.Number(Edit{0}, 0.1)
		case 2:
			forwarded.JSON(Edit{0}, []byte(`"text"`))
		case 3:
			forwarded.Number(Edit{0}, 1e21)
		}
		return nil
	})
	edit = &mixed.forward.edits.places[0]
	same(t, "texts", string(edit.data), `0.1"text"1e+21`)
	same(t, "ends", edit.ends, []uint32{3, 3, 9, 14})
	same(t, "absent", edit.absent, []byte{0, 1, 0, 0})
}

func TestOutputsAndBinaryStandWhereTheyAreNeeded(t *testing.T) {
	outcome := decided(messages("1", "2", "3"), func(m Message, out *Outcome) error {
		emission := out.Emit(m)
		if m.Index() == 1 {
			emission.To(Output{7}).Binary(true)
		}
		return nil
	})
	same(t, "outputs", grown(outcome.emissions.outputs, 3), []uint16{0, 7, 0})
	same(t, "binary", grown(outcome.emissions.binary, 3), []byte{0, 1, 0})
}

func TestWhatIsCompleteIsNotWrittenOn(t *testing.T) {
	batch := messages("1", "2")
	for what, wrong := range map[string]func(m Message, out *Outcome){
		"an emission": func(m Message, out *Outcome) {
			first := out.Emit(m)
			out.Emit(m)
			first.Text("late")
		},
		"a forwarded message": func(m Message, out *Outcome) {
			first := out.Forward(batch.Message(0))
			out.Forward(batch.Message(1))
			first.To(Output{1})
		},
		"an earlier message": func(m Message, out *Outcome) {
			out.Forward(batch.Message(1))
			out.Forward(batch.Message(0))
		},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s was written on", what)
				}
			}()
			decided(batch, func(m Message, out *Outcome) error {
				wrong(m, out)
				return nil
			})
		}()
	}
}

func TestAHandleIsTheSameForTheSameName(t *testing.T) {
	setup := &Setup{}
	same(t, "outputs", []Output{setup.Output("a"), setup.Output("b"), setup.Output("a")}, []Output{{1}, {2}, {1}})
	same(t, "default", setup.Output("default"), Output{})
	same(t, "fields", []int{setup.Number("/p").column, setup.Text("/p").column, setup.Number("/p").column}, []int{0, 1, 0})
	setup.TickEvery(time.Microsecond)
	same(t, "tick", setup.tickMS, 1)
}

// The numbers are those of FNV-1a as its authors publish them.
func TestSharesAreThoseOfTheHost(t *testing.T) {
	for key, hash := range map[string]uint64{"": 0xcbf29ce484222325, "a": 0xaf63dc4c8601ec8c, "foobar": 0x85944171f73967e8} {
		for parts := uint32(1); parts < 5; parts++ {
			for part := range parts {
				same(t, key, Share{part, parts}.Has(key), hash%uint64(parts) == uint64(part))
			}
		}
	}
}

func TestTextsThatAreNoUTF8Cross(t *testing.T) {
	setup := &Setup{}
	mark := setup.Write("mark")
	out := &Outcome{}
	out.reset(setup)
	batch := messages("a", "b")
	out.Reject(batch.Message(0), "bytes \xff\xc3(")
	out.Forward(batch.Message(1)).Set(mark, "\xff")
	same(t, "reason", out.reasons, []string{"bytes \uFFFD("})
	same(t, "metadata", string(out.forward.writings.keys[0].data), "\uFFFD")
	out.Retry(batch.Message(1), "\xff", -5*time.Second)
	same(t, "retry", []any{out.reasons[1], out.retry.AfterMS}, []any{"\uFFFD", uint32(0)})
}

func TestAPluginThatIsNoneIsToldSo(t *testing.T) {
	defer func() { makePlugin = nil }()
	for what, plugin := range map[string]Plugin{"nil": nil, "a function": Func(nil)} {
		makePlugin = nil
		Export(func(*Setup) (Plugin, error) { return plugin, nil })
		if _, err := made(&Setup{}); err == nil || !strings.Contains(err.Error(), "returned nil in the place of a plugin") {
			t.Errorf("%s: %v", what, err)
		}
	}
	makePlugin = nil
	defer func() {
		same(t, "panic", recover(), any("plugin.Export takes the function that makes the plugin, and was given nil"))
	}()
	Export(nil)
}
