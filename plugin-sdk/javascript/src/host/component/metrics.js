// In a component: the host itself.
export { default } from "tidemill:plugin/metrics@0.1.0";
