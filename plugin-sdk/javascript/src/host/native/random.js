import { fake } from "./fake.js";

let turn = 0;
export default { next: () => fake.randoms[turn++ % fake.randoms.length] };
