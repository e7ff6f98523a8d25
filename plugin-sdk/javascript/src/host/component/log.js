// In a component: the host itself.
export { default } from "tidemill:plugin/log@0.1.0";
