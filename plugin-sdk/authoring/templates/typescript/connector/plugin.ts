// Has an endpoint dial with the header `Authorization`, which holds a token out of the configuration.

import { config, connector } from "tidemill-plugin";

export const dialler = connector({ config: { token: config.text() } }, ({ token }) => ({
  // Changes what is about to be dialled.
  beforeConnect(dial) {
    dial.setHeader("Authorization", `Bearer ${token}`);
  },
}));
