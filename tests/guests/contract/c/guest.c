// The contract's fixture guest in C: ../README.md says what it does.
//
// What the host passes is the guest's to free, and what the guest returns is freed by the bindings:
// every list that is returned comes from malloc, and slices of the batch live as long as the call.

#include "modes.h"

static uint64_t count = 0;
static const mode_t *mode = &COMMANDS;

static bool contains(slice_t text, slice_t part) {
  for (size_t i = 0; i + part.len <= text.len; i++)
    if (memcmp(text.at + i, part.at, part.len) == 0) return true;
  return false;
}

bool exports_tidemill_plugin_transformer_init(transform_string_t *config,
                                              transform_list_tuple2_string_string_t *facts,
                                              exports_tidemill_plugin_transformer_description_t *ret,
                                              transform_string_t *err) {
  slice_t text = {config->ptr, config->len};
  bool refuse = contains(text, SLICE("\"refuse\"")), observe = contains(text, SLICE("\"observe\""));
  bool blind = contains(text, SLICE("\"blind\"")), json = contains(text, SLICE("\"json\""));
  mode = blind ? &BLIND : &COMMANDS;
  if (contains(text, SLICE("\"fields\""))) mode = &FIELDS;
  if (contains(text, SLICE("\"filter\""))) mode = &FILTER;
  if (contains(text, SLICE("\"notional\""))) mode = &NOTIONAL;
  if (contains(text, SLICE("\"symbol\""))) mode = &SYMBOL;
  transform_string_free(config);
  transform_list_tuple2_string_string_free(facts);
  if (refuse) {
    *err = owned(SLICE("refused, as asked"));
    return false;
  }
  column_t outputs = {0}, reads = {0}, writes = {0}, fields = {0}, edits = {0};
  PUSH(&outputs, transform_string_t, owned(SLICE("side")));
  PUSH(&writes, transform_string_t, owned(SLICE("mark")));
  if (observe) PUSH(&reads, transform_string_t, owned(SLICE("room")));
  for (const field_t *field = mode->fields; field->pointer.at; field++)
    PUSH(&fields, tidemill_plugin_types_field_t,
         ((tidemill_plugin_types_field_t){owned(field->pointer), field->kind}));
  for (const slice_t *edit = mode->edits; edit->at; edit++) PUSH(&edits, transform_string_t, owned(*edit));
  *ret = (exports_tidemill_plugin_transformer_description_t){
      .outputs = {outputs.at, outputs.len},
      .reads = {reads.at, reads.len},
      .writes = {writes.at, writes.len},
      .fields = {fields.at, fields.len},
      .edits = {edits.at, edits.len},
      .json = json,
      .form = TIDEMILL_PLUGIN_TYPES_FORM_PACKED,
      .payloads = !blind,
      .times = observe,
      .tick_ms = 50,
  };
  return true;
}

bool exports_tidemill_plugin_transformer_process(batch_t *batch,
                                                 exports_tidemill_plugin_transformer_outcome_t *ret,
                                                 transform_string_t *err) {
  memset(ret, 0, sizeof *ret);
  if (!mode->decide(batch, &count, ret, err)) return false;
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

bool exports_tidemill_plugin_transformer_restore(transform_list_list_u8_t *snapshots, uint32_t part,
                                                 uint32_t parts, transform_string_t *err) {
  uint64_t kept = 0;
  bool valid = true;
  for (size_t i = 0; i < snapshots->len; i++) {
    slice_t rest = {snapshots->ptr[i].ptr, snapshots->ptr[i].len};
    do {
      slice_t digits = cut_at(&rest, '\n'), line = digits, key = cut_at(&digits, '=');
      if (key.len == line.len) digits = line;
      uint64_t number = 0;
      valid = valid && digits.len > 0;
      for (size_t n = 0; n < digits.len; n++) {
        valid = valid && digits.at[n] >= '0' && digits.at[n] <= '9';
        number = number * 10 + (digits.at[n] - '0');
      }
      uint32_t owner = key.len == line.len ? 0 : fnv1a(key) % parts;
      if (owner == part) kept += number;
    } while (rest.len > 0);
  }
  transform_list_list_u8_free(snapshots);
  if (!valid) {
    *err = owned(SLICE("not a count"));
    return false;
  }
  count = kept;
  return true;
}
