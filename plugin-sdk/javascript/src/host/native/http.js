import { fake } from "./fake.js";

const send = (request) => {
  fake.requests.push(request);
  return fake.answer(request);
};

export default {
  send,
  sendAll: (requests) =>
    requests.map((request) => {
      try {
        return { tag: "ok", val: send(request) };
      } catch (val) {
        return { tag: "err", val };
      }
    }),
};
