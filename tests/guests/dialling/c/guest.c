// A connector, as ../src/lib.rs is one in Rust: before a later dial it does what the ending of the last says.

#include "tidemill.h"

#include <stdio.h>
#include <string.h>

static char bearer[256];

static void init(tm_setup *setup) {
  tm_slice key = tm_config_text(setup, "key", NULL);
  snprintf(bearer, sizeof bearer, "Bearer %.*s", (int)key.len, (const char *)key.at);
  double ms = tm_config_number(setup, "tick_ms", 0);
  if (ms > 0) tm_tick_every_ms(setup, (uint32_t)ms);
}

static void before_connect(tm_dial *dial, const tm_attempt *attempt) {
  if (!attempt->has_last) {
    tm_dial_set_header(dial, TM("Authorization"), tm_str(bearer));
    tm_dial_send_first(dial, TM("hello żółw"));
    return;
  }
  const uint8_t *colon = memchr(attempt->detail.at, ':', attempt->detail.len);
  tm_slice order = attempt->detail, argument = TM("");
  if (colon) {
    order.len = (size_t)(colon - order.at);
    argument = (tm_slice){colon + 1, attempt->detail.len - order.len - 1};
  }
  if (tm_equal(order, TM("told"))) {
    char told[128];
    snprintf(told, sizeof told, "%u %.*s %d %d %llu", (unsigned)attempt->number, (int)attempt->outcome.len,
             (const char *)attempt->outcome.at, attempt->status > 0 ? (int)attempt->status : 0,
             attempt->close_code > 0 ? (int)attempt->close_code : 0, (unsigned long long)attempt->lasted_ms);
    tm_dial_set_header(dial, TM("X-Told"), tm_str(told));
  } else if (tm_equal(order, TM("url"))) {
    tm_dial_set_url(dial, argument);
  } else if (tm_equal(order, TM("ask"))) {
    tm_response answer = tm_http_send(&(tm_request){.method = TM("GET"), .url = argument});
    if (answer.error.at)
      tm_dial_refuse(dial, answer.error, -1);
    else
      tm_dial_set_header(dial, TM("X-Answer"), answer.body);
  } else {
    tm_dial_refuse(dial, argument, tm_equal(order, TM("later")) ? 250 : -1);
  }
}

static void tick(uint64_t now_us) {
  char why[32];
  snprintf(why, sizeof why, "%llu is odd", (unsigned long long)now_us);
  if (now_us % 2) tm_fail(tm_str(why));
}

static const tm_connector DIALLING = {.init = init, .before_connect = before_connect, .tick = tick};
TIDEMILL_CONNECTOR(DIALLING)
