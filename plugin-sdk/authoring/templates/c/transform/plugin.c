// Keeps the trades that are worth more than `above`, with a field more: `notional`, what the trade was worth.

#include "sdk/tidemill.h"
#include "worth.h"

static double above;
static tm_text event;
static tm_number price, quantity;
static tm_edit_number notional;

// What is wanted of each message, and what may be changed in it.
static void init(tm_setup *setup) {
  above = tm_config_number(setup, "above", 0);
  event = tm_ask_text(setup, "/data/e");
  price = tm_ask_number(setup, "/data/p");
  quantity = tm_ask_number(setup, "/data/q");
  notional = tm_ask_edit_number(setup, "/notional");
  tm_only_json(setup);
  tm_without_payloads(setup);
}

// Decides on one message. One that nothing is said of is filtered.
static void process(tm_message message, tm_out *out) {
  double value;
  if (!tm_equal(tm_get_text(message, event), TM("trade"))) return;
  if (is_worth(tm_get_number(message, price), tm_get_number(message, quantity), above, &value)) {
    tm_forward(out, message);
    tm_set_number(out, message, notional, value);
  }
}

static const tm_transform TRADES = {.init = init, .process = process};
TIDEMILL_TRANSFORM(TRADES)
