// Asks over HTTP what each message says, as ../src/lib.rs does in Rust: a request a line, a method, a url, headers as
// `name:value` and, after ` # `, a body; several lines are sent side by side.

#include "tidemill.h"

#include <string.h>

enum { MOST_REQUESTS = 8, MOST_HEADERS = 4 };

static uint32_t timeout_ms;

static void init(tm_setup *setup) { timeout_ms = (uint32_t)tm_config_number(setup, "timeout_ms", 0); }

// Takes what is before the separator off the rest; all of it, where there is none.
static tm_slice cut(tm_slice *rest, tm_slice separator) {
  size_t end = 0, after = rest->len;
  while (end < rest->len) {
    if (end + separator.len <= rest->len && memcmp(rest->at + end, separator.at, separator.len) == 0) {
      after = end + separator.len;
      break;
    }
    end++;
  }
  tm_slice before = {rest->at, end};
  *rest = (tm_slice){rest->at + after, rest->len - after};
  return before;
}

static tm_request request_of(tm_slice line, tm_pair *headers) {
  tm_slice head = cut(&line, TM(" # "));
  tm_request request = {.headers = headers, .body = line, .timeout_ms = timeout_ms};
  request.method = cut(&head, TM(" "));
  request.url = cut(&head, TM(" "));
  while (head.len > 0 && request.header_count < MOST_HEADERS) {
    tm_slice value = cut(&head, TM(" "));
    tm_slice name = cut(&value, TM(":"));
    headers[request.header_count++] = (tm_pair){name, value};
  }
  return request;
}

static void process(tm_message message, tm_out *out) {
  tm_request requests[MOST_REQUESTS];
  tm_pair headers[MOST_REQUESTS][MOST_HEADERS];
  tm_response responses[MOST_REQUESTS];
  size_t count = 0;
  for (tm_slice rest = message.payload; rest.len > 0 && count < MOST_REQUESTS; count++)
    requests[count] = request_of(cut(&rest, TM("\n")), headers[count]);
  if (count == 1)
    responses[0] = tm_http_send(requests);
  else
    tm_http_send_all(requests, count, responses);
  tm_emission *emission = tm_emit(out, message);
  for (size_t i = 0; i < count; i++) {
    if (i > 0) tm_append(emission, TM("\n"));
    if (responses[i].error.at) {
      tm_append(emission, responses[i].error);
      continue;
    }
    tm_append_int(emission, responses[i].status);
    tm_append(emission, TM(" "));
    tm_append(emission, responses[i].body);
  }
}

static const tm_transform ASKING = {.init = init, .process = process};
TIDEMILL_TRANSFORM(ASKING)
