// The contract's fixture guest in C: ../README.md says what it does.
//
// What the host passes is the guest's to free, and what the guest returns is freed by the bindings:
// every list that is returned comes from malloc, and slices of the batch live as long as the call.

#include "transform.h"
#include <stdlib.h>
#include <string.h>

typedef tidemill_plugin_types_emissions_t emissions_t;
typedef tidemill_plugin_types_setting_t setting_t;
typedef tidemill_plugin_types_writing_t writing_t;

static uint64_t count = 0;

// A piece of text or bytes that belongs to somebody else.
typedef struct {
  const uint8_t *at;
  size_t len;
} slice_t;

#define SLICE(literal) ((slice_t){(const uint8_t *)(literal), sizeof(literal) - 1})

static bool equal(slice_t a, slice_t b) { return a.len == b.len && memcmp(a.at, b.at, a.len) == 0; }

static bool contains(slice_t text, slice_t part) {
  for (size_t i = 0; i + part.len <= text.len; i++)
    if (memcmp(text.at + i, part.at, part.len) == 0) return true;
  return false;
}

// Cuts `rest` at its first colon: answers what is before, and leaves what is after.
static slice_t cut(slice_t *rest) {
  const uint8_t *colon = memchr(rest->at, ':', rest->len);
  slice_t before = {rest->at, colon ? (size_t)(colon - rest->at) : rest->len};
  size_t skipped = before.len + (colon ? 1 : 0);
  *rest = (slice_t){rest->at + skipped, rest->len - skipped};
  return before;
}

// The decimal digits of a number; `digits` has room for 20.
static slice_t decimal(uint64_t number, uint8_t digits[20]) {
  uint8_t *at = digits + 20;
  do *--at = '0' + number % 10; while (number /= 10);
  return (slice_t){at, (size_t)(digits + 20 - at)};
}

static transform_string_t owned(slice_t text) {
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
static void *extend(column_t *column, size_t more, size_t size) {
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

static void append(row_t *row, slice_t piece) {
  if (piece.len > 0) memcpy(extend(&row->data, piece.len, 1), piece.at, piece.len);
}

static void finish_piece(row_t *row) { PUSH(&row->ends, uint32_t, (uint32_t)row->data.len); }

// The emissions of one call, collected as columns.
typedef struct {
  row_t payloads;
  column_t binary, origins, outputs, marks;
  size_t binaries, marked, elsewhere;
} emitted_t;

// Of a batch of so many messages and bytes.
static emitted_t expecting(size_t messages, size_t bytes) {
  column_t column = {.room = messages};
  return (emitted_t){
      .payloads = {.data = {.room = bytes}, .ends = column},
      .binary = column,
      .origins = column,
      .outputs = column,
      .marks = column,
  };
}

static uint8_t *emit(emitted_t *emitted, uint32_t origin, uint16_t output, slice_t mark, slice_t payload,
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

static void emit_text(emitted_t *emitted, uint32_t origin, slice_t text) {
  emit(emitted, origin, 0, SLICE(""), text, false);
}

static slice_t value_of(slice_t mark) { return equal(mark, SLICE("-")) ? SLICE("") : mark; }

// The metadata column of emissions of which some have a mark.
static writing_t marks(const emitted_t *emitted) {
  const slice_t *marks = emitted->marks.at;
  writing_t writing;
  if (emitted->marked == emitted->marks.len) {
    row_t values = {.ends = {.room = emitted->marks.len}};
    for (size_t i = 0; i < emitted->marks.len; i++) {
      append(&values, value_of(marks[i]));
      finish_piece(&values);
    }
    writing.tag = TIDEMILL_PLUGIN_TYPES_WRITING_PACKED;
    writing.val.packed.data = (transform_list_u8_t){values.data.at, values.data.len};
    writing.val.packed.ends = (transform_list_u32_t){values.ends.at, values.ends.len};
  } else {
    column_t settings = {0};
    for (size_t i = 0; i < emitted->marks.len; i++)
      if (marks[i].len > 0) PUSH(&settings, setting_t, ((setting_t){i, owned(value_of(marks[i]))}));
    writing.tag = TIDEMILL_PLUGIN_TYPES_WRITING_SPARSE;
    writing.val.sparse = (tidemill_plugin_types_list_setting_t){settings.at, settings.len};
  }
  return writing;
}

// As the contract wants them. Columns that say nothing are left out.
static emissions_t columns(emitted_t *emitted) {
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
  if (emitted->marked > 0) {
    all.metadata.ptr = malloc(sizeof(writing_t));
    if (!all.metadata.ptr) abort();
    all.metadata.ptr[0] = marks(emitted);
    all.metadata.len = 1;
  }
  free(emitted->marks.at);
  return all;
}

static slice_t room(const exports_tidemill_plugin_transformer_batch_t *batch, size_t index) {
  if (!batch->metadata.is_some) return SLICE("");
  const tidemill_plugin_types_column_t *column = &batch->metadata.val.ptr[0];
  if (column->tag == TIDEMILL_PLUGIN_TYPES_COLUMN_SAME)
    return (slice_t){column->val.same.ptr, column->val.same.len};
  const tidemill_plugin_types_texts_t *texts = &column->val.packed;
  uint32_t start = index == 0 ? 0 : texts->ends.ptr[index - 1];
  return (slice_t){texts->data.ptr + start, texts->ends.ptr[index] - start};
}

bool exports_tidemill_plugin_transformer_init(transform_string_t *config,
                                              transform_list_tuple2_string_string_t *facts,
                                              exports_tidemill_plugin_transformer_description_t *ret,
                                              transform_string_t *err) {
  slice_t text = {config->ptr, config->len};
  bool refuse = contains(text, SLICE("\"refuse\"")), observe = contains(text, SLICE("\"observe\""));
  transform_string_free(config);
  for (size_t i = 0; i < facts->len; i++) transform_tuple2_string_string_free(&facts->ptr[i]);
  if (facts->len > 0) free(facts->ptr);
  if (refuse) {
    *err = owned(SLICE("refused, as asked"));
    return false;
  }
  column_t outputs = {0}, reads = {0}, writes = {0};
  PUSH(&outputs, transform_string_t, owned(SLICE("side")));
  PUSH(&writes, transform_string_t, owned(SLICE("mark")));
  if (observe) PUSH(&reads, transform_string_t, owned(SLICE("room")));
  *ret = (exports_tidemill_plugin_transformer_description_t){
      .outputs = {outputs.at, outputs.len},
      .reads = {reads.at, reads.len},
      .writes = {writes.at, writes.len},
      .payloads = TIDEMILL_PLUGIN_TYPES_FORM_PACKED,
      .times = observe,
      .tick_ms = 50,
  };
  return true;
}

bool exports_tidemill_plugin_transformer_process(exports_tidemill_plugin_transformer_batch_t *batch,
                                                 exports_tidemill_plugin_transformer_outcome_t *ret,
                                                 transform_string_t *err) {
  const tidemill_plugin_types_packed_t *packed = &batch->payloads.val.packed;
  size_t messages = packed->ends.len, start = 0, elsewhere = 0;
  emitted_t emitted = expecting(messages, packed->data.len);
  column_t forwarded = {.room = messages}, forward_outputs = {.room = messages}, rejections = {0};
  uint8_t digits[20];

  for (size_t i = 0; i < messages; start = packed->ends.ptr[i++]) {
    slice_t whole = {packed->data.ptr + start, packed->ends.ptr[i] - start}, rest = whole;
    count++;
    if (packed->binary.is_some && packed->binary.val.ptr[i]) {
      uint8_t *copy = emit(&emitted, i, 0, SLICE(""), whole, true);
      for (size_t from = 0; from < whole.len; from++) copy[from] = whole.at[whole.len - 1 - from];
      continue;
    }
    slice_t command = cut(&rest);
    if (equal(command, SLICE("drop"))) {
      continue;
    } else if (equal(command, SLICE("emit"))) {
      uint16_t output = equal(cut(&rest), SLICE("side"));
      slice_t mark = cut(&rest);
      emit(&emitted, i, output, mark, rest, false);
    } else if (equal(command, SLICE("room"))) {
      emit_text(&emitted, i, room(batch, i));
    } else if (equal(command, SLICE("time"))) {
      emit_text(&emitted, i, decimal(batch->times.is_some ? batch->times.val.ptr[i] : 0, digits));
    } else if (equal(command, SLICE("count"))) {
      emit_text(&emitted, i, decimal(count, digits));
    } else if (equal(command, SLICE("reject"))) {
      PUSH(&rejections, tidemill_plugin_types_rejection_t,
           ((tidemill_plugin_types_rejection_t){i, owned(rest)}));
    } else if (equal(command, SLICE("fail"))) {
      *err = owned(rest);
      return false;
    } else {
      uint16_t output = equal(whole, SLICE("forward:side"));
      elsewhere += output;
      PUSH(&forwarded, uint32_t, i);
      PUSH(&forward_outputs, uint16_t, output);
      if (equal(command, SLICE("both"))) emit_text(&emitted, i, rest);
    }
  }

  memset(ret, 0, sizeof *ret);
  if (forwarded.len == 0) {
    ret->forward.tag = TIDEMILL_PLUGIN_TYPES_FORWARD_NOTHING;
  } else if (forwarded.len == messages) {
    ret->forward.tag = TIDEMILL_PLUGIN_TYPES_FORWARD_ALL;
    free(forwarded.at);
  } else {
    ret->forward.tag = TIDEMILL_PLUGIN_TYPES_FORWARD_THESE;
    ret->forward.val.these = (transform_list_u32_t){forwarded.at, forwarded.len};
  }
  if (elsewhere > 0)
    ret->forward_outputs = (transform_list_u16_t){forward_outputs.at, forward_outputs.len};
  else
    free(forward_outputs.at);
  ret->emissions.is_some = emitted.origins.len > 0;
  if (ret->emissions.is_some) ret->emissions.val = columns(&emitted);
  ret->rejections = (tidemill_plugin_types_list_rejection_t){rejections.at, rejections.len};
  exports_tidemill_plugin_transformer_batch_free(batch);
  return true;
}

bool exports_tidemill_plugin_transformer_tick(uint64_t now_us,
                                              exports_tidemill_plugin_transformer_option_emissions_t *ret,
                                              transform_string_t *err) {
  (void)err;
  ret->is_some = count > 0;
  if (!ret->is_some) return true;
  uint8_t digits[20];
  emitted_t emitted = {0};
  append(&emitted.payloads, SLICE("tick:"));
  append(&emitted.payloads, decimal(now_us, digits));
  append(&emitted.payloads, SLICE(":"));
  append(&emitted.payloads, decimal(count, digits));
  finish_piece(&emitted.payloads);
  ret->val = columns(&emitted);
  ret->val.metadata.ptr = malloc(sizeof(writing_t));
  if (!ret->val.metadata.ptr) abort();
  ret->val.metadata.len = 1;
  ret->val.metadata.ptr[0].tag = TIDEMILL_PLUGIN_TYPES_WRITING_SAME;
  ret->val.metadata.ptr[0].val.same = owned(SLICE("timer"));
  return true;
}

bool exports_tidemill_plugin_transformer_finish(exports_tidemill_plugin_transformer_option_emissions_t *ret,
                                                transform_string_t *err) {
  (void)err;
  uint8_t digits[20];
  emitted_t emitted = {.elsewhere = 1};
  append(&emitted.payloads, SLICE("finish:"));
  append(&emitted.payloads, decimal(count, digits));
  finish_piece(&emitted.payloads);
  PUSH(&emitted.outputs, uint16_t, 1);
  ret->is_some = true;
  ret->val = columns(&emitted);
  return true;
}

bool exports_tidemill_plugin_transformer_snapshot(transform_option_list_u8_t *ret, transform_string_t *err) {
  (void)err;
  ret->is_some = count > 0;
  if (!ret->is_some) return true;
  uint8_t digits[20];
  transform_string_t text = owned(decimal(count, digits));
  ret->val = (transform_list_u8_t){text.ptr, text.len};
  return true;
}

bool exports_tidemill_plugin_transformer_restore(transform_list_u8_t *snapshot, transform_string_t *err) {
  uint64_t restored = 0;
  bool valid = snapshot->len > 0;
  for (size_t i = 0; i < snapshot->len; i++) {
    valid = valid && snapshot->ptr[i] >= '0' && snapshot->ptr[i] <= '9';
    restored = restored * 10 + (snapshot->ptr[i] - '0');
  }
  transform_list_u8_free(snapshot);
  if (!valid) {
    *err = owned(SLICE("not a count"));
    return false;
  }
  count = restored;
  return true;
}
