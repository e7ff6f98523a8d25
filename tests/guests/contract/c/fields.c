// What the JSON fields of a message say is to become of it.

#include "modes.h"

#define NUMBER TIDEMILL_PLUGIN_TYPES_KIND_NUMBER
#define TEXT TIDEMILL_PLUGIN_TYPES_KIND_TEXT
#define JSON TIDEMILL_PLUGIN_TYPES_KIND_JSON
#define LITERAL(literal) {(const uint8_t *)(literal), sizeof(literal) - 1}

static const double ABOVE = 100, NOT_A_NUMBER = __builtin_nan("");

// No metadata is read in these modes: the first column is the first field.
static const double *numbers(const batch_t *batch, size_t field) {
  return batch->columns.val.ptr[field].val.field.val.numbers.ptr;
}

// What a message has of a field; nothing, not even an empty text, where it is absent.
static slice_t value(const batch_t *batch, size_t field, size_t index) {
  const tidemill_plugin_types_optional_texts_t *texts = &batch->columns.val.ptr[field].val.field.val.packed;
  if (texts->absent.is_some && texts->absent.val.ptr[index]) return (slice_t){0};
  uint32_t start = index == 0 ? 0 : texts->ends.ptr[index - 1];
  return (slice_t){texts->data.ptr + start, texts->ends.ptr[index] - start};
}

// A column of texts of which some may be absent.
typedef struct {
  row_t row;
  column_t absent;
} texts_t;

static void add(texts_t *texts, slice_t value) {
  append(&texts->row, value);
  finish_piece(&texts->row);
  PUSH(&texts->absent, uint8_t, value.at == NULL);
}

static tidemill_plugin_types_values_t values_of(const texts_t *texts) {
  tidemill_plugin_types_values_t values = {.tag = TIDEMILL_PLUGIN_TYPES_VALUES_PACKED};
  values.val.packed.data = (transform_list_u8_t){texts->row.data.at, texts->row.data.len};
  values.val.packed.ends = (transform_list_u32_t){texts->row.ends.at, texts->row.ends.len};
  values.val.packed.absent.is_some = true;
  values.val.packed.absent.val = (transform_list_u8_t){texts->absent.at, texts->absent.len};
  return values;
}

static tidemill_plugin_types_values_t numbers_of(const column_t *column) {
  tidemill_plugin_types_values_t values = {.tag = TIDEMILL_PLUGIN_TYPES_VALUES_NUMBERS};
  values.val.numbers = (transform_list_f64_t){column->at, column->len};
  return values;
}

static void show(const batch_t *batch, uint32_t index, emitted_t *emitted) {
  double price = numbers(batch, 0)[index];
  uint8_t digits[20];
  row_t shown = {0};
  append(&shown, price == price ? decimal((uint64_t)(100 * price + 0.5), digits) : SLICE("-"));
  for (size_t field = 2; field < 5; field++) {
    slice_t part = value(batch, field, index);
    append(&shown, SLICE("|"));
    append(&shown, part.at ? part : SLICE("-"));
  }
  emit_text(emitted, index, (slice_t){shown.data.at, shown.data.len});
  free(shown.data.at);
}

// An empty JSON string stands for removal, which is an empty text.
static slice_t note(slice_t value) { return equal(value, SLICE("\"\"")) ? SLICE("") : value; }

static bool decide(const batch_t *batch, uint64_t *count, outcome_t *ret, transform_string_t *err) {
  (void)err;
  *count += batch->count;
  emitted_t emitted = {0};
  column_t forwarded = {0}, prices = {0};
  texts_t notes = {0}, deep_notes = {0};
  for (uint32_t i = 0; i < batch->count; i++) {
    slice_t order = value(batch, 1, i);
    if (order.at && equal(order, SLICE("drop"))) continue;
    if (order.at && equal(order, SLICE("show"))) {
      show(batch, i, &emitted);
      continue;
    }
    bool edit = order.at && equal(order, SLICE("edit"));
    PUSH(&forwarded, uint32_t, i);
    PUSH(&prices, double, edit ? 2 * numbers(batch, 0)[i] : NOT_A_NUMBER);
    add(&notes, edit ? note(value(batch, 3, i)) : (slice_t){0});
    add(&deep_notes, edit ? note(value(batch, 4, i)) : (slice_t){0});
  }
  if (forwarded.len > 0) {
    ret->edits.ptr = malloc(3 * sizeof *ret->edits.ptr);
    if (!ret->edits.ptr) abort();
    ret->edits.len = 3;
    ret->edits.ptr[0] = numbers_of(&prices);
    ret->edits.ptr[1] = values_of(&notes);
    ret->edits.ptr[2] = values_of(&deep_notes);
  }
  ret->forward = forward_of(&forwarded, batch->count);
  ret->emissions.is_some = emitted.origins.len > 0;
  if (ret->emissions.is_some) ret->emissions.val = columns(&emitted);
  return true;
}

static bool filter(const batch_t *batch, uint64_t *count, outcome_t *ret, transform_string_t *err) {
  (void)err;
  *count += batch->count;
  column_t forwarded = {.room = batch->count};
  for (uint32_t i = 0; i < batch->count; i++)
    if (numbers(batch, 0)[i] > ABOVE && equal(value(batch, 1, i), SLICE("BTCUSDT")))
      PUSH(&forwarded, uint32_t, i);
  ret->forward = forward_of(&forwarded, batch->count);
  return true;
}

static bool notional(const batch_t *batch, uint64_t *count, outcome_t *ret, transform_string_t *err) {
  (void)err;
  *count += batch->count;
  column_t worth = {.room = batch->count};
  for (uint32_t i = 0; i < batch->count; i++)
    PUSH(&worth, double, numbers(batch, 0)[i] * numbers(batch, 1)[i]);
  ret->forward.tag = TIDEMILL_PLUGIN_TYPES_FORWARD_ALL;
  ret->edits.ptr = malloc(sizeof *ret->edits.ptr);
  if (!ret->edits.ptr) abort();
  ret->edits.len = 1;
  ret->edits.ptr[0] = numbers_of(&worth);
  return true;
}

static bool symbol(const batch_t *batch, uint64_t *count, outcome_t *ret, transform_string_t *err) {
  (void)err;
  *count += batch->count;
  emitted_t emitted = expecting(batch->count, 8 * batch->count);
  for (uint32_t i = 0; i < batch->count; i++) {
    slice_t text = value(batch, 0, i);
    emit_text(&emitted, i, text.at ? text : SLICE("-"));
  }
  ret->emissions.is_some = true;
  ret->emissions.val = columns(&emitted);
  return true;
}

static const field_t SHOWN[] = {{LITERAL("/price"), NUMBER}, {LITERAL("/do"), TEXT},
                                {LITERAL("/a~1b"), TEXT},   {LITERAL("/set/0"), JSON},
                                {LITERAL("/set/1"), JSON},  {0}};
static const slice_t EDITED[] = {LITERAL("/price"), LITERAL("/note"), LITERAL("/deep/note"), {0}};
static const field_t FILTERED[] = {{LITERAL("/p"), NUMBER}, {LITERAL("/s"), TEXT}, {0}};
static const slice_t NOT_EDITED[] = {{0}};
static const field_t TRADE[] = {{LITERAL("/p"), NUMBER}, {LITERAL("/q"), NUMBER}, {0}};
static const slice_t WORTH[] = {LITERAL("/notional"), {0}};
static const field_t NAMED[] = {{LITERAL("/s"), TEXT}, {0}};

const mode_t FIELDS = {SHOWN, EDITED, decide};
const mode_t FILTER = {FILTERED, NOT_EDITED, filter};
const mode_t NOTIONAL = {TRADE, WORTH, notional};
const mode_t SYMBOL = {NAMED, NOT_EDITED, symbol};
