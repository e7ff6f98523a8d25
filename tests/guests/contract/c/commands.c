// What the text of a message says is to become of it.

#include "modes.h"

#include <stdlib.h>
#include <string.h>

tm_output side;
tm_write mark;
static tm_read room;
static bool observes;

void init_commands(tm_setup *setup, bool observe) {
  side = tm_ask_output(setup, "side");
  mark = tm_ask_write(setup, "mark");
  observes = observe;
  if (!observe) return;
  room = tm_ask_read(setup, "room");
  tm_times(setup);
}

tm_slice cut(tm_slice *rest) {
  const uint8_t *found = memchr(rest->at, ':', rest->len);
  tm_slice before = {rest->at, found ? (size_t)(found - rest->at) : rest->len};
  size_t skipped = before.len + (found ? 1 : 0);
  *rest = (tm_slice){rest->at + skipped, rest->len - skipped};
  return before;
}

static uint64_t number_of(tm_slice digits) {
  uint64_t number = 0;
  for (size_t i = 0; i < digits.len; i++) number = number * 10 + (digits.at[i] - '0');
  return number;
}

// A value of metadata, of which "-" is none.
static tm_slice mark_of(tm_slice text) { return tm_equal(text, TM("-")) ? TM("") : text; }

// What the host's state has for the messages of a batch that ask for it, in their order.
static tm_slice *loaded;

// Does what a batch says of the host's state, in one call each.
static void save_and_load(const tm_batch *batch) {
  uint32_t messages = tm_count(batch), changed = 0, asked = 0;
  tm_change *changes = malloc(messages * sizeof *changes);
  tm_slice *keys = malloc(messages * sizeof *keys);
  loaded = realloc(loaded, messages * sizeof *loaded);
  if (!changes || !keys || !loaded) abort();
  for (uint32_t i = 0; i < messages; i++) {
    tm_slice rest = tm_message_at(batch, i).payload, command = cut(&rest);
    if (tm_equal(command, TM("load"))) keys[asked++] = rest;
    if (!tm_equal(command, TM("save"))) continue;
    tm_slice key = cut(&rest);
    uint64_t ttl_ms = number_of(cut(&rest));
    changes[changed++] = (tm_change){key, tm_equal(rest, TM("-")) ? (tm_slice){0} : rest, ttl_ms};
  }
  tm_slice refused = tm_state_set_many(changes, changed);
  if (refused.at) tm_fail(refused);
  tm_state_get_many(keys, asked, loaded);
  free(changes);
  free(keys);
}

static void decide(tm_message message, tm_out *out, uint64_t count, tm_slice **next) {
  tm_slice rest = message.payload;
  if (!tm_is_text(message)) {
    uint8_t *copy = tm_append_room(tm_emit(out, message), rest.len);
    for (size_t i = 0; i < rest.len; i++) copy[i] = rest.at[rest.len - 1 - i];
    return;
  }
  tm_slice command = cut(&rest);
  if (tm_equal(command, TM("drop")) || tm_equal(command, TM("save"))) {
    return;
  } else if (tm_equal(command, TM("emit"))) {
    tm_emission *emission = tm_emit(out, message);
    if (tm_equal(cut(&rest), TM("side"))) tm_emit_to(emission, side);
    tm_slice value = cut(&rest);
    if (value.len > 0) tm_emit_metadata(emission, mark, mark_of(value));
    tm_append(emission, rest);
  } else if (tm_equal(command, TM("both"))) {
    tm_forward(out, message);
    tm_append(tm_emit(out, message), rest);
  } else if (tm_equal(command, TM("mark"))) {
    tm_forward(out, message);
    tm_set_metadata(out, message, mark, mark_of(rest));
  } else if (tm_equal(command, TM("room"))) {
    tm_append(tm_emit(out, message), observes ? tm_metadata(message, room) : TM(""));
  } else if (tm_equal(command, TM("time"))) {
    tm_append_int(tm_emit(out, message), (int64_t)tm_received_us(message));
  } else if (tm_equal(command, TM("count"))) {
    tm_append_int(tm_emit(out, message), (int64_t)count);
  } else if (tm_equal(command, TM("load"))) {
    tm_slice value = *(*next)++;
    tm_append(tm_emit(out, message), value.at ? value : TM("-"));
  } else if (tm_equal(command, TM("later"))) {
    uint32_t after_ms = (uint32_t)number_of(cut(&rest));
    tm_retry(out, message, rest, after_ms);
  } else if (tm_equal(command, TM("reject"))) {
    tm_reject(out, message, rest);
  } else if (tm_equal(command, TM("fail"))) {
    tm_fail(rest);
  } else {
    tm_forward_to(out, message, tm_equal(message.payload, TM("forward:side")) ? side : (tm_output){0});
  }
}

void obey(const tm_batch *batch, tm_out *out, uint64_t *count) {
  save_and_load(batch);
  tm_slice *next = loaded;
  for (uint32_t i = 0; i < tm_count(batch) && !tm_is_stopped(out); i++)
    decide(tm_message_at(batch, i), out, ++*count, &next);
}
