// The host's random numbers, which a replay may repeat. Not for secrets.

import host from "#host/random";

/** The next number, uniform in [0, 1). */
export const next = () => host.next();
