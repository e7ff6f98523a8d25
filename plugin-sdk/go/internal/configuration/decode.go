// Package configuration reads the configuration of a plugin, as JSON, into its struct. encoding/json speaks of Go where
// something is wrong, and seldom says where; here it is a sentence that names the key by its path.
package configuration

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// mostShown is how much is shown of a value that is wrong, in bytes.
const mostShown = 40

// Decode reads a configuration into the struct that to points to. A key that the struct does not have is refused, and
// so is a value of another type.
func Decode(config []byte, to any) error {
	decoder := json.NewDecoder(bytes.NewReader(config))
	decoder.UseNumber()
	var given any
	if err := decoder.Decode(&given); err != nil {
		return fmt.Errorf("the configuration is no JSON: %w", err)
	}
	if err := check(reflect.TypeOf(to), given, ""); err != nil {
		return err
	}
	err := json.Unmarshal(config, to)
	// What is left is what types that read themselves do not take.
	if text, ok := strings.CutPrefix(fmt.Sprint(err), "json: "); ok {
		return errors.New(text)
	}
	return err
}

// check is what is wrong with a value for a type, if anything is.
func check(of reflect.Type, given any, path string) error {
	for of.Kind() == reflect.Pointer && !readsItself(of) {
		of = of.Elem()
	}
	if given == nil || of.Kind() == reflect.Interface || readsItself(of) {
		return nil
	}
	fits := false
	switch given := given.(type) {
	case bool:
		fits = of.Kind() == reflect.Bool
	case string:
		fits = of.Kind() == reflect.String && of != reflect.TypeFor[json.Number]() || isBytes(of)
	case json.Number:
		fits = takesNumber(of, given)
	case []any:
		if of.Kind() != reflect.Slice && of.Kind() != reflect.Array {
			break
		}
		for place, one := range given {
			if err := check(of.Elem(), one, fmt.Sprintf("%s[%d]", path, place)); err != nil {
				return err
			}
		}
		return nil
	case map[string]any:
		if of.Kind() == reflect.Struct || of.Kind() == reflect.Map {
			return checkKeys(of, given, path)
		}
	}
	if fits {
		return nil
	}
	if path == "" {
		path = "the configuration"
	}
	return fmt.Errorf("%s is %s, and must be %s", path, shown(given), expected(of))
}

func checkKeys(of reflect.Type, given map[string]any, path string) error {
	for _, key := range slices.Sorted(maps.Keys(given)) {
		place := key
		if path != "" {
			place = path + "." + key
		}
		ofKey, err := typeOf(of, key, place)
		if err != nil {
			return err
		}
		if err := check(ofKey, given[key], place); err != nil {
			return err
		}
	}
	return nil
}

// typeOf is the type of the value that a struct or a map has for a key.
func typeOf(of reflect.Type, key, place string) (reflect.Type, error) {
	if of.Kind() == reflect.Map {
		return of.Elem(), nil
	}
	var known []string
	for _, field := range reflect.VisibleFields(of) {
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		isEmbedded := field.Anonymous && name == ""
		if !field.IsExported() || isEmbedded || name == "-" && options == "" {
			continue
		}
		if name == "" {
			name = field.Name
		}
		if strings.EqualFold(name, key) {
			if slices.Contains(strings.Split(options, ","), "string") {
				// In the form that encoding/json has for it.
				return reflect.TypeFor[any](), nil
			}
			return field.Type, nil
		}
		known = append(known, name)
	}
	if len(known) == 0 {
		return nil, fmt.Errorf("%s is not known: there is nothing to configure here", place)
	}
	return nil, fmt.Errorf("%s is not known: the keys are %s", place, strings.Join(known, ", "))
}

// readsItself tells whether a type says itself how it is read.
func readsItself(of reflect.Type) bool {
	pointer := reflect.PointerTo(of)
	return pointer.Implements(reflect.TypeFor[json.Unmarshaler]()) ||
		pointer.Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

func isBytes(of reflect.Type) bool {
	return of.Kind() == reflect.Slice && of.Elem().Kind() == reflect.Uint8
}

func takesNumber(of reflect.Type, number json.Number) bool {
	var err error
	switch kind := of.Kind(); {
	case of == reflect.TypeFor[json.Number]():
	case reflect.Int <= kind && kind <= reflect.Int64:
		_, err = strconv.ParseInt(string(number), 10, of.Bits())
	case reflect.Uint <= kind && kind <= reflect.Uintptr:
		_, err = strconv.ParseUint(string(number), 10, of.Bits())
	case kind == reflect.Float32 || kind == reflect.Float64:
		_, err = strconv.ParseFloat(string(number), of.Bits())
	default:
		return false
	}
	return err == nil
}

// shown is a value in words that are no Go.
func shown(given any) string {
	switch given := given.(type) {
	case map[string]any:
		return "a table"
	case []any:
		return "a list"
	case string:
		if len(given) > mostShown {
			return fmt.Sprintf("%q…", strings.ToValidUTF8(given[:mostShown], ""))
		}
		return strconv.Quote(given)
	default:
		return fmt.Sprint(given)
	}
}

// expected is what a type stands for, in words that are no Go.
func expected(of reflect.Type) string {
	switch kind := of.Kind(); {
	case of == reflect.TypeFor[json.Number]():
		return "a number"
	case kind == reflect.Bool:
		return "true or false"
	case reflect.Int <= kind && kind <= reflect.Int64:
		least := int64(-1) << (of.Bits() - 1)
		return whole(of.Bits(), least, -least-1)
	case reflect.Uint <= kind && kind <= reflect.Uintptr:
		return whole(of.Bits(), 0, int64(1)<<of.Bits()-1)
	case kind == reflect.Float32 || kind == reflect.Float64:
		return "a number"
	case kind == reflect.String || isBytes(of):
		return "a text"
	case kind == reflect.Slice || kind == reflect.Array:
		return "a list"
	default:
		return "a table"
	}
}

// whole is a whole number of so many bits. Of those of 64 only the least is said that everybody knows.
func whole(bits int, least, most int64) string {
	switch {
	case bits < 64:
		return fmt.Sprintf("a whole number from %d to %d", least, most)
	case least == 0:
		return "a whole number of at least 0"
	default:
		return "a whole number"
	}
}
