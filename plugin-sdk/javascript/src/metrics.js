// The plugin's own metrics, `tidemill_guest_<name>` beside the host's.

import host from "#host/metrics";

/** Adds to a counter; what is below 0 is ignored. */
export const add = (counter, by = 1) => host.add(counter, by);
/** Sets a gauge. */
export const set = (gauge, value) => host.set(gauge, value);
/** Records a value in a histogram. */
export const observe = (histogram, value) => host.observe(histogram, value);
