// UTF-8 in plain JavaScript: QuickJS has neither TextEncoder nor TextDecoder.

const REPLACEMENT = 0xfffd;
const MOST_ARGUMENTS = 4096;

/** A text as it may cross: half a surrogate pair has no UTF-8, and would be a trap. It becomes U+FFFD. */
export const wellFormed = (text) => (text.isWellFormed() ? text : text.toWellFormed());

/** The UTF-8 bytes of a text. A lone surrogate becomes U+FFFD. */
export function encode(text) {
  let bytes = new Uint8Array(text.length);
  let length = 0;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit < 0x80) {
      bytes[length++] = unit;
      continue;
    }
    if (bytes.length === text.length) {
      // The first that is not ASCII: no unit takes more than three bytes.
      const wider = new Uint8Array(length + 3 * (text.length - i));
      wider.set(bytes.subarray(0, length));
      bytes = wider;
    }
    let point = text.codePointAt(i);
    if (point > 0xffff) i++;
    else if (point >= 0xd800 && point < 0xe000) point = REPLACEMENT;
    if (point < 0x800) {
      bytes[length++] = 0xc0 | (point >> 6);
    } else {
      if (point < 0x10000) {
        bytes[length++] = 0xe0 | (point >> 12);
      } else {
        bytes[length++] = 0xf0 | (point >> 18);
        bytes[length++] = 0x80 | ((point >> 12) & 0x3f);
      }
      bytes[length++] = 0x80 | ((point >> 6) & 0x3f);
    }
    bytes[length++] = 0x80 | (point & 0x3f);
  }
  return bytes.subarray(0, length);
}

/** The text that bytes are in UTF-8. Throws where they are not. */
export function decode(bytes) {
  const pieces = [];
  let units = [];
  for (let i = 0; i < bytes.length; ) {
    // A call takes no more arguments than the stack has room for.
    if (units.length > MOST_ARGUMENTS) {
      pieces.push(String.fromCharCode.apply(null, units));
      units = [];
    }
    const first = bytes[i];
    if (first < 0x80) {
      units.push(first);
      i++;
      continue;
    }
    const [length, least, bits] = shape(first);
    let point = bits;
    for (let n = 1; n < length; n++) {
      const next = bytes[i + n];
      if (next === undefined || (next & 0xc0) !== 0x80) throw new TypeError(`byte ${i} is not UTF-8`);
      point = (point << 6) | (next & 0x3f);
    }
    if (point < least || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) {
      throw new TypeError(`byte ${i} is not UTF-8`);
    }
    if (point > 0xffff) units.push(0xd7c0 + (point >> 10), 0xdc00 | (point & 0x3ff));
    else units.push(point);
    i += length;
  }
  pieces.push(String.fromCharCode.apply(null, units));
  return pieces.join("");
}

/** Of a first byte: how many there are, the least code point, and the bits of it that it holds. */
function shape(first) {
  if (first >= 0xc2 && first < 0xe0) return [2, 0x80, first & 0x1f];
  if (first >= 0xe0 && first < 0xf0) return [3, 0x800, first & 0x0f];
  if (first >= 0xf0 && first < 0xf5) return [4, 0x10000, first & 0x07];
  return [1, Infinity, 0];
}
