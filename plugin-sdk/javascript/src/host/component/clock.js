// In a component: the host itself.
export { default } from "tidemill:plugin/clock@0.1.0";
