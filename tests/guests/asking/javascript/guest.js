// Asks over HTTP what each message says, as ../src/lib.rs does in Rust: a request a line, a method, a url, headers as
// `name:value` and, after ` # `, a body; several lines are sent side by side.

import { config, http, transform } from "tidemill-plugin";

const request = (line, timeoutMs) => {
  const [head, body] = line.split(" # ");
  const [method, url, ...headers] = head.split(" ");
  return { method, url, headers: headers.map((header) => header.split(":")), body, timeoutMs };
};

const told = (answer) => (answer instanceof http.HttpError ? answer.message : `${answer.status} ${answer.text()}`);

function send(request) {
  try {
    return http.send(request);
  } catch (error) {
    if (error instanceof http.HttpError) return error;
    throw error;
  }
}

export const transformer = transform({ config: { timeout_ms: config.integer(0) } }, ({ timeout_ms }) => ({
  process(message, out) {
    const requests = message.text.split("\n").map((line) => request(line, timeout_ms));
    const answers = requests.length === 1 ? [send(requests[0])] : http.sendAll(requests);
    out.emit(answers.map(told).join("\n"));
  },
}));
