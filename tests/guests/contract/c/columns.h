// Slices of what the host passed, and columns of what it gets back: every list that is returned comes from
// malloc, and is freed by the bindings.

#ifndef COLUMNS_H
#define COLUMNS_H

#include "transform.h"
#include <stdlib.h>
#include <string.h>

typedef tidemill_plugin_types_emissions_t emissions_t;
typedef tidemill_plugin_types_setting_t setting_t;
typedef tidemill_plugin_types_writing_t writing_t;
typedef tidemill_plugin_types_list_writing_t writings_t;
typedef tidemill_plugin_types_outcome_t outcome_t;
typedef exports_tidemill_plugin_transformer_batch_t batch_t;

// A piece of text or bytes that belongs to somebody else.
typedef struct {
  const uint8_t *at;
  size_t len;
} slice_t;

#define SLICE(literal) ((slice_t){(const uint8_t *)(literal), sizeof(literal) - 1})

static inline bool equal(slice_t a, slice_t b) { return a.len == b.len && memcmp(a.at, b.at, a.len) == 0; }

// Cuts `rest` at the first byte of this kind: answers what is before, and leaves what is after.
static inline slice_t cut_at(slice_t *rest, char at) {
  const uint8_t *found = memchr(rest->at, at, rest->len);
  slice_t before = {rest->at, found ? (size_t)(found - rest->at) : rest->len};
  size_t skipped = before.len + (found ? 1 : 0);
  *rest = (slice_t){rest->at + skipped, rest->len - skipped};
  return before;
}

static inline slice_t cut(slice_t *rest) { return cut_at(rest, ':'); }

static inline uint64_t number_of(slice_t digits) {
  uint64_t number = 0;
  for (size_t i = 0; i < digits.len; i++) number = number * 10 + (digits.at[i] - '0');
  return number;
}

// The hash by which instances share out keys.
static inline uint64_t fnv1a(slice_t key) {
  uint64_t hash = 14695981039346656037u;
  for (size_t i = 0; i < key.len; i++) hash = (hash ^ key.at[i]) * 1099511628211u;
  return hash;
}

// A text that remains somebody else's, for a call of the host.
static inline transform_string_t borrowed(slice_t text) {
  return (transform_string_t){(uint8_t *)text.at, text.len};
}

// The decimal digits of a number; `digits` has room for 20.
static inline slice_t decimal(uint64_t number, uint8_t digits[20]) {
  uint8_t *at = digits + 20;
  do *--at = '0' + number % 10; while (number /= 10);
  return (slice_t){at, (size_t)(digits + 20 - at)};
}

static inline transform_string_t owned(slice_t text) {
  transform_string_t copy;
  transform_string_dup_n(&copy, (const char *)text.at, text.len);
  return copy;
}

// A list that grows. Until its first element, `room` is how many are expected: the allocator of zig's
// libc takes microseconds to give more.
typedef struct {
  void *at;
  size_t len, room;
} column_t;

// Room for `more` elements of `size` bytes at the column's end.
static inline void *extend(column_t *column, size_t more, size_t size) {
  size_t needed = column->len + more;
  if (!column->at || needed > column->room) {
    if (needed > column->room) column->room = needed * 2;
    column->at = realloc(column->at, column->room * size);
    if (!column->at) abort();
  }
  void *end = (uint8_t *)column->at + column->len * size;
  column->len = needed;
  return end;
}

#define PUSH(column, type, value) (*(type *)extend(column, 1, sizeof(type)) = (value))

// Texts or payloads in a row.
typedef struct {
  column_t data, ends;
} row_t;

static inline void append(row_t *row, slice_t piece) {
  if (piece.len > 0) memcpy(extend(&row->data, piece.len, 1), piece.at, piece.len);
}

static inline void finish_piece(row_t *row) { PUSH(&row->ends, uint32_t, (uint32_t)row->data.len); }

// The emissions of one call, collected as columns.
typedef struct {
  row_t payloads;
  column_t binary, origins, outputs, marks;
  size_t binaries, marked, elsewhere;
} emitted_t;

// Of a batch of so many messages and bytes.
static inline emitted_t expecting(size_t messages, size_t bytes) {
  column_t column = {.room = messages};
  return (emitted_t){
      .payloads = {.data = {.room = bytes}, .ends = column},
      .binary = column,
      .origins = column,
      .outputs = column,
      .marks = column,
  };
}

static inline uint8_t *emit(emitted_t *emitted, uint32_t origin, uint16_t output, slice_t mark, slice_t payload,
                     bool binary) {
  size_t start = emitted->payloads.data.len;
  append(&emitted->payloads, payload);
  finish_piece(&emitted->payloads);
  PUSH(&emitted->binary, uint8_t, binary);
  PUSH(&emitted->origins, uint32_t, origin);
  PUSH(&emitted->outputs, uint16_t, output);
  PUSH(&emitted->marks, slice_t, mark);
  emitted->binaries += binary;
  emitted->marked += mark.len > 0;
  emitted->elsewhere += output != 0;
  return (uint8_t *)emitted->payloads.data.at + start;
}

static inline void emit_text(emitted_t *emitted, uint32_t origin, slice_t text) {
  emit(emitted, origin, 0, SLICE(""), text, false);
}

static inline slice_t value_of(slice_t mark) { return equal(mark, SLICE("-")) ? SLICE("") : mark; }

// The metadata columns of emissions or forwarded messages of which so many have a mark; none if none has. Frees
// the marks.
static inline writings_t marks_of(column_t *column, size_t marked) {
  const slice_t *marks = column->at;
  writings_t all = {0};
  if (marked == 0) {
    free(column->at);
    return all;
  }
  all.ptr = malloc(sizeof(writing_t));
  if (!all.ptr) abort();
  all.len = 1;
  writing_t *writing = all.ptr;
  if (marked == column->len) {
    row_t values = {.ends = {.room = column->len}};
    for (size_t i = 0; i < column->len; i++) {
      append(&values, value_of(marks[i]));
      finish_piece(&values);
    }
    writing->tag = TIDEMILL_PLUGIN_TYPES_WRITING_PACKED;
    writing->val.packed.data = (transform_list_u8_t){values.data.at, values.data.len};
    writing->val.packed.ends = (transform_list_u32_t){values.ends.at, values.ends.len};
  } else {
    column_t settings = {0};
    for (size_t i = 0; i < column->len; i++)
      if (marks[i].len > 0) PUSH(&settings, setting_t, ((setting_t){i, owned(value_of(marks[i]))}));
    writing->tag = TIDEMILL_PLUGIN_TYPES_WRITING_SPARSE;
    writing->val.sparse = (tidemill_plugin_types_list_setting_t){settings.at, settings.len};
  }
  free(column->at);
  return all;
}

// As the contract wants them. Columns that say nothing are left out.
static inline emissions_t columns(emitted_t *emitted) {
  emissions_t all = {0};
  all.payloads.tag = TIDEMILL_PLUGIN_TYPES_PAYLOADS_PACKED;
  tidemill_plugin_types_packed_t *packed = &all.payloads.val.packed;
  packed->data = (transform_list_u8_t){emitted->payloads.data.at, emitted->payloads.data.len};
  packed->ends = (transform_list_u32_t){emitted->payloads.ends.at, emitted->payloads.ends.len};
  packed->binary.is_some = emitted->binaries > 0;
  if (packed->binary.is_some)
    packed->binary.val = (transform_list_u8_t){emitted->binary.at, emitted->binary.len};
  else
    free(emitted->binary.at);
  all.origins = (transform_list_u32_t){emitted->origins.at, emitted->origins.len};
  if (emitted->elsewhere > 0)
    all.outputs = (transform_list_u16_t){emitted->outputs.at, emitted->outputs.len};
  else
    free(emitted->outputs.at);
  all.metadata = marks_of(&emitted->marks, emitted->marked);
  return all;
}

// Which messages of a batch are forwarded, collected. Frees the indices where a word says the same.
static inline tidemill_plugin_types_forward_t forward_of(column_t *forwarded, size_t messages) {
  tidemill_plugin_types_forward_t forward = {0};
  if (forwarded->len == messages) {
    forward.tag = TIDEMILL_PLUGIN_TYPES_FORWARD_ALL;
    free(forwarded->at);
  } else if (forwarded->len == 0) {
    forward.tag = TIDEMILL_PLUGIN_TYPES_FORWARD_NOTHING;
    free(forwarded->at);
  } else {
    forward.tag = TIDEMILL_PLUGIN_TYPES_FORWARD_THESE;
    forward.val.these = (transform_list_u32_t){forwarded->at, forwarded->len};
  }
  return forward;
}

#endif
