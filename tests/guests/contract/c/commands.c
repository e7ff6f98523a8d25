// What the text of a message says is to become of it.

#include "modes.h"

static slice_t room(const exports_tidemill_plugin_transformer_batch_t *batch, size_t index) {
  if (!batch->columns.is_some) return SLICE("");
  const tidemill_plugin_types_column_t *column = &batch->columns.val.ptr[0];
  if (column->tag == TIDEMILL_PLUGIN_TYPES_COLUMN_SAME)
    return (slice_t){column->val.same.ptr, column->val.same.len};
  const tidemill_plugin_types_texts_t *texts = &column->val.packed;
  uint32_t start = index == 0 ? 0 : texts->ends.ptr[index - 1];
  return (slice_t){texts->data.ptr + start, texts->ends.ptr[index] - start};
}

// Does what a batch says of the host's state, in one call each; gives what was loaded, in the order in which it
// was asked for.
static transform_list_option_list_u8_t save_and_load(const batch_t *batch) {
  const tidemill_plugin_types_packed_t *packed = &batch->payloads.val.val.packed;
  column_t changes = {0}, keys = {0};
  for (size_t i = 0, start = 0; i < packed->ends.len; start = packed->ends.ptr[i++]) {
    slice_t rest = {packed->data.ptr + start, packed->ends.ptr[i] - start};
    if (rest.len == 0 || (*rest.at != 's' && *rest.at != 'l')) continue;
    slice_t command = cut(&rest);
    if (equal(command, SLICE("save"))) {
      tidemill_plugin_state_change_t change = {.key = borrowed(cut(&rest)), .ttl_ms = number_of(cut(&rest))};
      change.value.is_some = !equal(rest, SLICE("-"));
      change.value.val = (transform_list_u8_t){(uint8_t *)rest.at, rest.len};
      PUSH(&changes, tidemill_plugin_state_change_t, change);
    } else if (equal(command, SLICE("load"))) {
      PUSH(&keys, transform_string_t, borrowed(rest));
    }
  }
  transform_string_t refused;
  tidemill_plugin_state_list_change_t all = {changes.at, changes.len};
  if (changes.len > 0 && !tidemill_plugin_state_set_many(&all, &refused)) abort();
  transform_list_option_list_u8_t loaded = {0};
  if (keys.len > 0) tidemill_plugin_state_get_many(&(transform_list_string_t){keys.at, keys.len}, &loaded);
  // The keys and values are the batch's.
  free(changes.at);
  free(keys.at);
  return loaded;
}

static bool obey(const batch_t *batch, uint64_t *count, outcome_t *ret, transform_string_t *err) {
  const tidemill_plugin_types_packed_t *packed = &batch->payloads.val.val.packed;
  size_t messages = packed->ends.len, start = 0, elsewhere = 0, marked = 0, next_loaded = 0;
  emitted_t emitted = expecting(messages, packed->data.len);
  column_t forwarded = {.room = messages}, forward_outputs = forwarded, forward_marks = forwarded;
  column_t rejections = {0};
  transform_list_option_list_u8_t loaded = save_and_load(batch);
  uint8_t digits[20];

  for (size_t i = 0; i < messages && !ret->retry.is_some; start = packed->ends.ptr[i++]) {
    slice_t whole = {packed->data.ptr + start, packed->ends.ptr[i] - start}, rest = whole;
    ++*count;
    if (packed->binary.is_some && packed->binary.val.ptr[i]) {
      uint8_t *copy = emit(&emitted, i, 0, SLICE(""), whole, true);
      for (size_t from = 0; from < whole.len; from++) copy[from] = whole.at[whole.len - 1 - from];
      continue;
    }
    slice_t command = cut(&rest);
    if (equal(command, SLICE("drop")) || equal(command, SLICE("save"))) {
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
      emit_text(&emitted, i, decimal(*count, digits));
    } else if (equal(command, SLICE("load"))) {
      const transform_option_list_u8_t *value = &loaded.ptr[next_loaded++];
      emit_text(&emitted, i, value->is_some ? (slice_t){value->val.ptr, value->val.len} : SLICE("-"));
    } else if (equal(command, SLICE("later"))) {
      uint64_t after_ms = number_of(cut(&rest));
      ret->retry.is_some = true;
      ret->retry.val = (tidemill_plugin_types_retry_t){i, owned(rest), after_ms};
    } else if (equal(command, SLICE("reject"))) {
      PUSH(&rejections, tidemill_plugin_types_rejection_t,
           ((tidemill_plugin_types_rejection_t){i, owned(rest)}));
    } else if (equal(command, SLICE("fail"))) {
      *err = owned(rest);
      return false;
    } else {
      uint16_t output = equal(whole, SLICE("forward:side"));
      slice_t mark = equal(command, SLICE("mark")) ? rest : SLICE("");
      elsewhere += output;
      marked += mark.len > 0;
      PUSH(&forwarded, uint32_t, i);
      PUSH(&forward_outputs, uint16_t, output);
      PUSH(&forward_marks, slice_t, mark);
      if (equal(command, SLICE("both"))) emit_text(&emitted, i, rest);
    }
  }

  ret->forward = forward_of(&forwarded, messages);
  if (elsewhere > 0)
    ret->forward_outputs = (transform_list_u16_t){forward_outputs.at, forward_outputs.len};
  else
    free(forward_outputs.at);
  ret->forward_metadata = marks_of(&forward_marks, marked);
  ret->emissions.is_some = emitted.origins.len > 0;
  if (ret->emissions.is_some) ret->emissions.val = columns(&emitted);
  ret->rejections = (tidemill_plugin_types_list_rejection_t){rejections.at, rejections.len};
  if (loaded.len > 0) transform_list_option_list_u8_free(&loaded);
  return true;
}

static bool forward_all(const batch_t *batch, uint64_t *count, outcome_t *ret, transform_string_t *err) {
  (void)err;
  *count += batch->count;
  ret->forward.tag = TIDEMILL_PLUGIN_TYPES_FORWARD_ALL;
  return true;
}

static const field_t NO_FIELDS[] = {{0}};
static const slice_t NO_EDITS[] = {{0}};

const mode_t COMMANDS = {NO_FIELDS, NO_EDITS, obey};
const mode_t BLIND = {NO_FIELDS, NO_EDITS, forward_all};
