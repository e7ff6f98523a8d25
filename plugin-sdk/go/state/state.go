// Package state is values that the host keeps for a transform: they outlive the instance, its faults
// and swaps. All instances of a transform share them. What a call changes counts once its outcome is
// accepted.
//
// Each function crosses the boundary, so [GetMany] and [SetMany], once a batch, are the fast way. In
// native tests the values are kept in memory.
package state

import "time"

// Change is a change of one key.
type Change struct {
	// Key is at most 1,024 bytes.
	Key string
	// Value is its new value; nil removes it.
	Value []byte
	// For is how long it has this value, of the host's time in whole milliseconds; 0 is until it is
	// changed.
	For time.Duration
}

// Error says which limit a change would break.
type Error string

// Error is the text.
func (e Error) Error() string { return string(e) }

// Get is the value of a key, and whether it has one.
func Get(key string) (value []byte, ok bool) { return get(key) }

// GetMany is the value of each key; nil for those that have none.
func GetMany(keys []string) [][]byte { return getMany(keys) }

// Set gives a key a value until it is changed.
func Set(key string, value []byte) error { return set(key, value) }

// SetMany makes all changes, in their order, or none.
func SetMany(changes []Change) error { return setMany(changes) }

// Delete removes a key.
func Delete(key string) { remove(key) }

// Keys are the keys that start with prefix, ascending, at most limit. With a page before it they go on
// after its last key; "" begins.
func Keys(prefix, after string, limit uint32) []string { return keys(prefix, after, limit) }
