package main

import (
	"math"
	"testing"
)

func TestATradeSaysWhatItWasWorth(t *testing.T) {
	if value, ok := worth(2.5, 3, 1); value != 7.5 || !ok {
		t.Errorf("got %v, %v", value, ok)
	}
	for _, quantity := range []float64{0.1, math.NaN()} {
		if value, ok := worth(2.5, quantity, 1); ok {
			t.Errorf("%v is not enough", value)
		}
	}
}
