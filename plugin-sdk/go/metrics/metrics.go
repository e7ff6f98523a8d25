// Package metrics is the plugin's own metrics: `tidemill_guest_NAME` beside the host's. Names are
// lower-case letters, digits and "_", and the host keeps a bounded number of them. What a call adds
// counts once its outcome is accepted. In native tests they go nowhere.
package metrics

// Add adds to a counter, whose name ends in "_total".
func Add(counter string, by float64) { add(counter, by) }

// Set sets a gauge.
func Set(gauge string, value float64) { set(gauge, value) }

// Observe records a value in a histogram.
func Observe(histogram string, value float64) { observe(histogram, value) }
