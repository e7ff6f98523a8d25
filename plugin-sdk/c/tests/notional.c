#include "tidemill.h"

static tm_number price, quantity;
static tm_edit_number notional;
static double above;

static void init(tm_setup *setup) {
  above = tm_config_number(setup, "above", 100);
  price = tm_ask_number(setup, "/price");
  quantity = tm_ask_number(setup, "/qty");
  notional = tm_ask_edit_number(setup, "/notional");
  tm_only_json(setup);
  tm_without_payloads(setup);
}

static void process(tm_message message, tm_out *out) {
  double at = tm_get_number(message, price);
  if (at > above) {
    tm_forward(out, message);
    tm_set_number(out, message, notional, at * tm_get_number(message, quantity));
  }
}

static const tm_transform NOTIONAL = {.init = init, .process = process};
TIDEMILL_TRANSFORM(NOTIONAL)
