// In a component: the host itself.
export { default } from "tidemill:plugin/state@0.1.0";
