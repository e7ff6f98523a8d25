// What the JSON fields of a message say is to become of it.

#include "modes.h"

#include <math.h>

static tm_number price, quantity;
static tm_text order, text, values[2], symbol;
static tm_edit_number doubled, notional;
static tm_edit_json notes[2];

static void init_fields(tm_setup *setup) {
  price = tm_ask_number(setup, "/price");
  order = tm_ask_text(setup, "/do");
  text = tm_ask_text(setup, "/a~1b");
  values[0] = tm_ask_json(setup, "/set/0");
  values[1] = tm_ask_json(setup, "/set/1");
  doubled = tm_ask_edit_number(setup, "/price");
  notes[0] = tm_ask_edit_json(setup, "/note");
  notes[1] = tm_ask_edit_json(setup, "/deep/note");
}

static void show(tm_message message, tm_out *out) {
  tm_emission *emission = tm_emit(out, message);
  double number = tm_get_number(message, price);
  if (isnan(number)) {
    tm_append(emission, TM("-"));
  } else {
    tm_append_int(emission, (int64_t)(100 * number + 0.5));
  }
  tm_text fields[] = {text, values[0], values[1]};
  for (size_t i = 0; i < 3; i++) {
    tm_slice value = tm_get_text(message, fields[i]);
    tm_append(emission, TM("|"));
    tm_append(emission, value.at ? value : TM("-"));
  }
}

static void edit(tm_message message, tm_out *out) {
  tm_set_number(out, message, doubled, 2 * tm_get_number(message, price));
  for (size_t i = 0; i < 2; i++) {
    tm_slice value = tm_get_text(message, values[i]);
    if (!value.at) continue;
    // An empty JSON string stands for removal.
    if (tm_equal(value, TM("\"\""))) {
      tm_remove(out, message, notes[i]);
    } else {
      tm_set_json(out, message, notes[i], value);
    }
  }
}

static void show_or_edit(const tm_batch *batch, tm_out *out) {
  for (uint32_t i = 0; i < tm_count(batch); i++) {
    tm_message message = tm_message_at(batch, i);
    tm_slice what = tm_get_text(message, order);
    if (tm_equal(what, TM("drop"))) continue;
    if (tm_equal(what, TM("show"))) {
      show(message, out);
      continue;
    }
    tm_forward(out, message);
    if (tm_equal(what, TM("edit"))) edit(message, out);
  }
}

static void init_filter(tm_setup *setup) {
  price = tm_ask_number(setup, "/p");
  symbol = tm_ask_text(setup, "/s");
}

static void filter(const tm_batch *batch, tm_out *out) {
  const double *prices = tm_numbers(batch, price);
  for (uint32_t i = 0; i < tm_count(batch); i++) {
    tm_message message = {batch, i, TM("")};
    if (prices[i] > 100 && tm_equal(tm_get_text(message, symbol), TM("BTCUSDT"))) tm_forward(out, message);
  }
}

static void init_notional(tm_setup *setup) {
  price = tm_ask_number(setup, "/p");
  quantity = tm_ask_number(setup, "/q");
  notional = tm_ask_edit_number(setup, "/notional");
}

static void add_notional(const tm_batch *batch, tm_out *out) {
  const double *prices = tm_numbers(batch, price), *quantities = tm_numbers(batch, quantity);
  for (uint32_t i = 0; i < tm_count(batch); i++) {
    tm_message message = {batch, i, TM("")};
    tm_forward(out, message);
    tm_set_number(out, message, notional, prices[i] * quantities[i]);
  }
}

static void init_symbol(tm_setup *setup) { symbol = tm_ask_text(setup, "/s"); }

static void emit_symbol(const tm_batch *batch, tm_out *out) {
  for (uint32_t i = 0; i < tm_count(batch); i++) {
    tm_message message = {batch, i, TM("")};
    tm_slice value = tm_get_text(message, symbol);
    tm_append(tm_emit(out, message), value.at ? value : TM("-"));
  }
}

static void init_nothing(tm_setup *setup) { (void)setup; }
static void forward_all(const tm_batch *batch, tm_out *out) { tm_forward_all(out, batch); }

const mode MODES[] = {
    {"\"fields\"", init_fields, show_or_edit},
    {"\"filter\"", init_filter, filter},
    {"\"notional\"", init_notional, add_notional},
    {"\"symbol\"", init_symbol, emit_symbol},
    {"\"blind\"", init_nothing, forward_all},
};
const size_t MODE_COUNT = sizeof MODES / sizeof *MODES;
