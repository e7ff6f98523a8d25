//go:build !wasip1

package state

import (
	"bytes"
	"maps"
	"slices"
	"strings"
)

// values is the state of a native test. What has a time stays.
var values = map[string][]byte{}

func get(key string) ([]byte, bool) {
	value, ok := values[key]
	return bytes.Clone(value), ok
}

func getMany(keys []string) [][]byte {
	all := make([][]byte, len(keys))
	for i, key := range keys {
		all[i] = bytes.Clone(values[key])
	}
	return all
}

func set(key string, value []byte) error {
	return setMany([]Change{{Key: key, Value: append([]byte{}, value...)}})
}

func setMany(changes []Change) error {
	for _, change := range changes {
		if change.Value == nil {
			delete(values, change.Key)
		} else {
			values[change.Key] = bytes.Clone(change.Value)
		}
	}
	return nil
}

func remove(key string) { delete(values, key) }

func keys(prefix, after string, limit uint32) []string {
	all := slices.Sorted(maps.Keys(values))
	all = slices.DeleteFunc(all, func(key string) bool {
		return !strings.HasPrefix(key, prefix) || (after != "" && key <= after)
	})
	return all[:min(len(all), int(limit))]
}
