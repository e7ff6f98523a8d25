// The host's time, which a replay may set.

import host from "#host/clock";

/** The time, in microseconds since the Unix epoch. */
export const nowUs = () => host.nowUs();
