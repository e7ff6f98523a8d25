import { fake } from "./fake.js";

export default { nowUs: () => fake.nowUs };
