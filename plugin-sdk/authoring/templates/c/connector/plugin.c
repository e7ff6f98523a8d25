// Has an endpoint dial with the header `Authorization`, which holds a token out of the configuration.

#include "sdk/tidemill.h"
#include "bearer.h"

static char value[256];

static void init(tm_setup *setup) {
  tm_slice token = tm_config_text(setup, "token", NULL);
  if (token.at && !bearer((const char *)token.at, token.len, value, sizeof value)) tm_fail(TM("the token is too long"));
}

// Changes what is about to be dialled.
static void before_connect(tm_dial *dial, const tm_attempt *attempt) {
  (void)attempt;
  tm_dial_set_header(dial, TM("Authorization"), tm_str(value));
}

static const tm_connector TOKEN = {.init = init, .before_connect = before_connect};
TIDEMILL_CONNECTOR(TOKEN)
