package configuration

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

type inner struct {
	Field  string `json:"field"`
	hidden int
}

type way string

func (w *way) UnmarshalText(text []byte) error {
	if *w = way(text); *w != "up" && *w != "down" {
		return fmt.Errorf("a way is up or down, and not %q", text)
	}
	return nil
}

type common struct {
	Name string
}

type config struct {
	common
	Above   float64          `json:"above"`
	Count   uint8            `json:"count,omitempty"`
	Large   uint64           `json:"large"`
	Signed  int              `json:"signed"`
	Small   int8             `json:"small"`
	On      *bool            `json:"on"`
	Pairs   []string         `json:"pairs"`
	Rooms   map[string]inner `json:"rooms"`
	Rules   []*inner         `json:"rules"`
	Any     any              `json:"any"`
	Raw     json.RawMessage  `json:"raw"`
	Number  json.Number      `json:"number"`
	Key     []byte           `json:"key"`
	Way     way              `json:"way"`
	Quoted  int              `json:"quoted,string"`
	Private string           `json:"-"`
}

func TestWhatIsWrongIsSaidWithTheKeyAndWhatItMustBe(t *testing.T) {
	const keys = "the keys are Name, above, count, large, signed, small, on, pairs, rooms, rules, any, raw, number, key, way, quoted"
	for _, wrong := range [][2]string{
		{`{`, "the configuration is no JSON: unexpected EOF"},
		{`7`, "the configuration is 7, and must be a table"},
		{`{"abov":1}`, "abov is not known: " + keys},
		{`{"Private":""}`, "Private is not known: " + keys},
		{`{"above":"1"}`, `above is "1", and must be a number`},
		{`{"above":[1]}`, "above is a list, and must be a number"},
		{`{"count":-1}`, "count is -1, and must be a whole number from 0 to 255"},
		{`{"count":1.5}`, "count is 1.5, and must be a whole number from 0 to 255"},
		{`{"large":-1}`, "large is -1, and must be a whole number of at least 0"},
		{`{"signed":1e3}`, "signed is 1e3, and must be a whole number"},
		{`{"small":128}`, "small is 128, and must be a whole number from -128 to 127"},
		{`{"on":"yes"}`, `on is "yes", and must be true or false`},
		{`{"pairs":"a"}`, `pairs is "a", and must be a list`},
		{`{"pairs":["a",1]}`, "pairs[1] is 1, and must be a text"},
		{`{"rooms":[]}`, "rooms is a list, and must be a table"},
		{`{"rooms":{"a":{"feild":1}}}`, "rooms.a.feild is not known: the keys are field"},
		{`{"rules":[{},{"field":true}]}`, "rules[1].field is true, and must be a text"},
		{`{"number":"1"}`, `number is "1", and must be a number`},
		{`{"key":{}}`, "key is a table, and must be a text"},
		{`{"way":"left"}`, `a way is up or down, and not "left"`},
		{fmt.Sprintf(`{"above":%q}`, strings.Repeat("x", 50)), fmt.Sprintf("above is %q…, and must be a number", strings.Repeat("x", 40))},
	} {
		if err := Decode([]byte(wrong[0]), &config{}); err == nil || err.Error() != wrong[1] {
			t.Errorf("%s: %v", wrong[0], err)
		}
	}
	if err := Decode([]byte(`{"a":1}`), &struct{}{}); err.Error() != "a is not known: there is nothing to configure here" {
		t.Error(err)
	}
}

func TestWhatIsRightIsRead(t *testing.T) {
	read := config{Above: 100}
	const text = `{
		"name": "n", "COUNT": 255, "large": 18446744073709551615, "signed": -1, "small": -128, "on": true, "pairs": ["a"],
		"rooms": {"a": {"field": "f"}}, "rules": [{"field": "g"}, null], "any": {"x": [1]}, "raw": {"y": 2},
		"number": 1e3, "key": "aGk=", "way": "up", "quoted": "7"
	}`
	if err := Decode([]byte(text), &read); err != nil {
		t.Fatal(err)
	}
	told := fmt.Sprintln(
		read.Name, read.Above, read.Count, read.Large, read.Signed, read.Small, *read.On, read.Pairs, read.Rooms["a"].Field,
		read.Rules[0].Field, read.Rules[1], read.Any, string(read.Raw), read.Number, string(read.Key), read.Way, read.Quoted,
	)
	if expected := "n 100 255 18446744073709551615 -1 -128 true [a] f g <nil> map[x:[1]] {\"y\": 2} 1e3 hi up 7\n"; told != expected {
		t.Error(told)
	}
}
