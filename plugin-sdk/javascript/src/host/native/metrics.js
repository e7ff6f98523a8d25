import { fake } from "./fake.js";

export default {
  add: (name, by) => void fake.counters.set(name, (fake.counters.get(name) ?? 0) + Math.max(by, 0)),
  set: (name, value) => void fake.gauges.set(name, value),
  observe: (name, value) => void fake.histograms.set(name, [...(fake.histograms.get(name) ?? []), value]),
};
