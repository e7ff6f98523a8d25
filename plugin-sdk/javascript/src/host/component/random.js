// In a component: the host itself.
export { default } from "tidemill:plugin/random@0.1.0";
