// JSON pointers (RFC 6901): the fields and the edits that a plugin declares.

/** A JSON field that is declared: its pointer, and what is wanted of it. */
export class Field {
  constructor(pointer, kind) {
    this.pointer = checked(pointer);
    this.kind = kind;
  }
}

/** A field as a number: a JSON number, or a string that holds one. As an edit: always a number. */
export const number = (pointer) => new Field(pointer, "number");
/** A field as what a string says. */
export const text = (pointer) => new Field(pointer, "text");
/** A field of any type, parsed when it is looked at. */
export const json = (pointer) => new Field(pointer, "json");

/** A pointer. Throws where it is none. */
export function checked(pointer) {
  const error = typeof pointer === "string" ? pointerError(pointer) : "it is no text";
  if (error !== undefined) throw new TypeError(`${JSON.stringify(pointer)} is not a JSON pointer: ${error}`);
  return pointer;
}

/** What is wrong with a pointer, if anything is. */
export function pointerError(pointer) {
  if (pointer !== "" && !pointer.startsWith("/")) return 'it does not begin with "/"';
  if (/~([^01]|$)/.test(pointer)) return '"~" is written "~0", and "/" in a name "~1"';
  return undefined;
}
