// The contract's fixture guest in C, with the SDK: ../README.md says what it does.

#include "modes.h"

#include <string.h>

static uint64_t count = 0;
static const mode *chosen = NULL; // none: the text of a message decides

static bool contains(tm_slice text, const char *word) {
  size_t len = strlen(word);
  for (size_t i = 0; i + len <= text.len; i++)
    if (memcmp(text.at + i, word, len) == 0) return true;
  return false;
}

static void init(tm_setup *setup) {
  tm_slice config = tm_config_all(setup);
  if (contains(config, "\"refuse\"")) tm_fail(TM("refused, as asked"));
  init_commands(setup, contains(config, "\"observe\""));
  for (size_t i = 0; i < MODE_COUNT && !chosen; i++)
    if (contains(config, MODES[i].word)) chosen = &MODES[i];
  if (chosen) chosen->init(setup);
  if (contains(config, "\"blind\"")) tm_without_payloads(setup);
  if (contains(config, "\"json\"")) tm_only_json(setup);
  if (contains(config, "\"guards\"")) tm_guards(setup);
  tm_tick_every_ms(setup, 50);
}

static void process_batch(const tm_batch *batch, tm_out *out) {
  if (!chosen) {
    obey(batch, out, &count);
    return;
  }
  count += tm_count(batch);
  chosen->decide(batch, out);
}

static void tick(uint64_t now_us, tm_out *out) {
  if (count == 0) return;
  tm_emission *emission = tm_emit_new(out);
  tm_emit_metadata(emission, mark, TM("timer"));
  tm_append(emission, TM("tick:"));
  tm_append_int(emission, (int64_t)now_us);
  tm_append(emission, TM(":"));
  tm_append_int(emission, (int64_t)count);
}

static void finish(tm_out *out) {
  tm_emission *emission = tm_emit_new(out);
  tm_emit_to(emission, side);
  tm_append(emission, TM("finish:"));
  tm_append_int(emission, (int64_t)count);
}

static void snapshot(void) {
  uint8_t digits[20], *at = digits + sizeof digits;
  if (count == 0) return;
  for (uint64_t rest = count; rest > 0; rest /= 10) *--at = '0' + rest % 10;
  tm_save((tm_slice){at, (size_t)(digits + sizeof digits - at)});
}

// A line of `KEY=COUNT`, or a count, which belongs to part 0.
static void add_line(tm_slice line, tm_part part) {
  size_t digits = line.len;
  while (digits > 0 && line.at[digits - 1] != '=') digits--;
  bool is_own = digits > 0 ? tm_has(part, (tm_slice){line.at, digits - 1}) : part.number == 0;
  uint64_t number = 0;
  if (digits == line.len) tm_fail(TM("not a count"));
  for (size_t i = digits; i < line.len; i++) {
    if (line.at[i] < '0' || line.at[i] > '9') tm_fail(TM("not a count"));
    number = number * 10 + (line.at[i] - '0');
  }
  if (is_own) count += number;
}

static void restore(const tm_slice *snapshots, size_t snapshot_count, tm_part part) {
  count = 0;
  for (size_t i = 0; i < snapshot_count; i++) {
    size_t start = 0;
    for (size_t end = 0; end <= snapshots[i].len; end++) {
      if (end < snapshots[i].len && snapshots[i].at[end] != '\n') continue;
      add_line((tm_slice){snapshots[i].at + start, end - start}, part);
      start = end + 1;
    }
  }
}

static const tm_transform CONTRACT = {
    .init = init,
    .process_batch = process_batch,
    .tick = tick,
    .finish = finish,
    .snapshot = snapshot,
    .restore = restore,
};
TIDEMILL_TRANSFORM(CONTRACT)
