// In a component: the host itself.
export { default } from "tidemill:plugin/http@0.1.0";
