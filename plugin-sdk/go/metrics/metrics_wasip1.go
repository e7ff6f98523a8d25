package metrics

import "tidemill.dev/plugin/internal/boundary"

//go:wasmimport tidemill:plugin/metrics@0.1.0 add
func importAdd(counter string, by float64)

//go:wasmimport tidemill:plugin/metrics@0.1.0 set
func importSet(gauge string, value float64)

//go:wasmimport tidemill:plugin/metrics@0.1.0 observe
func importObserve(histogram string, value float64)

func add(counter string, by float64) {
	boundary.EnterImport()
	importAdd(counter, by)
}

func set(gauge string, value float64) {
	boundary.EnterImport()
	importSet(gauge, value)
}

func observe(histogram string, value float64) {
	boundary.EnterImport()
	importObserve(histogram, value)
}
