// KuCoin's way: each connection needs a token of its own, which a request gives, together with the server to dial.

import { config, connector, http, random } from "tidemill-plugin";

export const dialler = connector({ config: { url: config.text() } }, ({ url }) => ({
  beforeConnect(dial) {
    const { code, msg, data } = http.post(url).success().json();
    // Refusals come with a status of success.
    if (code !== "200000") throw new Error(`there is no token: ${msg ?? code}`);
    const [server] = data.instanceServers;
    if (server === undefined) throw new Error("the answer names no server");
    dial.url = server.endpoint;
    dial.setQuery("token", data.token);
    dial.setQuery("connectId", random.next().toString(36).slice(2));
  },
}));
