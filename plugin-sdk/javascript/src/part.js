// How several instances of a plugin share out the keys of their state.

import { encode } from "./utf8.js";

/** Which of several instances this one is. */
export class Part {
  /** The number of this one, from 0, and how many there are. */
  constructor(number = 0, of = 1) {
    this.number = number;
    this.of = of;
  }

  /** Whether it is the only one. */
  get isWhole() {
    return this.of <= 1;
  }

  /** Whether a key belongs to this instance. To the only one there is, every key does. */
  has(key) {
    return this.isWhole || remainder(key, this.of) === this.number;
  }
}

// 64-bit FNV-1a in 16-bit pieces: numbers are exact to 2^53, and a BigInt for each byte is slow. The prime is
// 2^40 + 0x1b3, so that the product is the hash shifted by 40 bits and 0x1b3 times the hash.
const PRIME = 0x1b3;

/** The pieces of a key's hash, the lowest first. */
function pieces(key) {
  let [a, b, c, d] = [0x2325, 0x8422, 0x9ce4, 0xcbf2];
  for (const byte of encode(key)) {
    a ^= byte;
    const shifted = a << 8;
    const upper = (b << 8) | (a >>> 8);
    a *= PRIME;
    b = b * PRIME + (a >>> 16);
    c = c * PRIME + (b >>> 16) + (shifted & 0xffff);
    d = d * PRIME + (c >>> 16) + (upper & 0xffff);
    a &= 0xffff;
    b &= 0xffff;
    c &= 0xffff;
    d &= 0xffff;
  }
  return [a, b, c, d];
}

/** The hash of a key by which the host shares out messages: 64-bit FNV-1a of its UTF-8 bytes. */
export function hash(key) {
  return pieces(key).reduceRight((hash, piece) => (hash << 16n) | BigInt(piece), 0n);
}

function remainder(key, parts) {
  return pieces(key).reduceRight((rest, piece) => (rest * 0x10000 + piece) % parts, 0);
}
