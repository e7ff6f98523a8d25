// Write Tidemill plugins in C. README.md shows a whole one.
//
// A plugin is a tm_transform or a tm_connector, which TIDEMILL_TRANSFORM or TIDEMILL_CONNECTOR exports. One instance is
// only ever called by one caller at a time. What the host passes (slices of messages, values of the state, answers)
// lives until the call ends: copy what is kept. A trap, as that of abort(), is a fault; tm_fail is one with a text. So is a
// handle that means nothing: of what `init` did not ask for, or a message of an earlier call. Bytes of a text that are not
// UTF-8 become U+FFFD.

#ifndef TIDEMILL_H
#define TIDEMILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// A piece of text or bytes that belongs to somebody else. One whose `at` is NULL is absent.
typedef struct {
  const uint8_t *at;
  size_t len;
} tm_slice;

// The slice of a literal, and of a text that ends in a zero.
#define TM(literal) ((tm_slice){(const uint8_t *)(literal), sizeof(literal) - 1})
tm_slice tm_str(const char *text);
bool tm_equal(tm_slice a, tm_slice b);

// What the callback that runs is at fault for, which ends the call: `init` and `restore` refuse with it. The first
// counts.
void tm_fail(tm_slice why);

// ---- What a plugin asks for, in `init`. Each request gives the handle with which it is used; one that nothing has set is
// a fault where it is used.

typedef struct tm_setup tm_setup;
typedef struct { uint16_t number; } tm_output;     // {0} is the output "default"
typedef struct { uint32_t place; } tm_read;        // a metadata key that is seen
typedef struct { uint32_t place; } tm_write;       // a metadata key that may be set
typedef struct { uint32_t place; } tm_number;      // a JSON field as a number
typedef struct { uint32_t place; } tm_text;        // a JSON field as what a string says, or as JSON
typedef struct { uint32_t place; } tm_edit_number; // a place that is set to numbers
typedef struct { uint32_t place; } tm_edit_json;   // a place that is set to JSON texts, or removed

tm_output tm_ask_output(tm_setup *setup, const char *name);
tm_read tm_ask_read(tm_setup *setup, const char *key);
tm_write tm_ask_write(tm_setup *setup, const char *key);
// JSON pointers, such as "/data/0/p". A number may also be a string that holds one.
tm_number tm_ask_number(tm_setup *setup, const char *pointer);
tm_text tm_ask_text(tm_setup *setup, const char *pointer);
tm_text tm_ask_json(tm_setup *setup, const char *pointer);
tm_edit_number tm_ask_edit_number(tm_setup *setup, const char *pointer);
tm_edit_json tm_ask_edit_json(tm_setup *setup, const char *pointer);
// The host rejects what is not JSON; payloads do not cross; messages have the time at which they were received.
void tm_only_json(tm_setup *setup);
// It is there to keep something from going on: the host warns of on_error = "pass".
void tm_guards(tm_setup *setup);
void tm_without_payloads(tm_setup *setup);
void tm_times(tm_setup *setup);
void tm_tick_every_ms(tm_setup *setup, uint32_t ms);
// Where the plugin runs: "pipeline", "transform", "instance" and others of wit/transform.wit.
tm_slice tm_fact(const tm_setup *setup, const char *name);

// ---- The configuration, by key. What is wrong is told with the key and what was expected, and so is a key that was not
// asked for. A key is required where `otherwise` is NULL, or NAN; what is given back lives as long as the instance.

tm_slice tm_config_text(tm_setup *setup, const char *key, const char *otherwise);
tm_slice tm_config_one_of(tm_setup *setup, const char *key, const char *const *texts, const char *otherwise);
double tm_config_number(tm_setup *setup, const char *key, double otherwise);
bool tm_config_bool(tm_setup *setup, const char *key, bool otherwise);
// A duration such as "1m30s", in milliseconds.
double tm_config_duration_ms(tm_setup *setup, const char *key, const char *otherwise);
// A JSON pointer, for tm_ask_number and its like.
const char *tm_config_pointer(tm_setup *setup, const char *key, const char *otherwise);
// What stands there as JSON; absent where the key is not there.
tm_slice tm_config_json(tm_setup *setup, const char *key);
// The whole configuration, of which then every key is known.
tm_slice tm_config_all(tm_setup *setup);

// ---- Messages.

typedef struct tm_batch tm_batch;
typedef struct {
  const tm_batch *batch;
  uint32_t index;
  tm_slice payload; // empty where the plugin does without
} tm_message;

uint32_t tm_count(const tm_batch *batch);
tm_message tm_message_at(const tm_batch *batch, uint32_t index);
// All values of a field: NaN where a message does not have it.
const double *tm_numbers(const tm_batch *batch, tm_number field);

bool tm_is_text(tm_message message);
double tm_get_number(tm_message message, tm_number field); // NaN where it is absent
tm_slice tm_get_text(tm_message message, tm_text field);
tm_slice tm_metadata(tm_message message, tm_read key); // empty where the message does not have it
uint64_t tm_received_us(tm_message message);           // 0 unless tm_times asked for it

// ---- What becomes of them, in their order. A message that nothing is said of is filtered.

typedef struct tm_out tm_out;
typedef struct tm_emission tm_emission;

void tm_forward(tm_out *out, tm_message message);
void tm_forward_to(tm_out *out, tm_message message, tm_output output);
void tm_forward_all(tm_out *out, const tm_batch *batch);
// Of a message that goes on. What is not a number, NaN, leaves the place as it is.
void tm_set_number(tm_out *out, tm_message message, tm_edit_number edit, double number);
void tm_set_json(tm_out *out, tm_message message, tm_edit_json edit, tm_slice json);
void tm_remove(tm_out *out, tm_message message, tm_edit_json edit);
void tm_set_metadata(tm_out *out, tm_message message, tm_write key, tm_slice value); // "" removes the key
// Refuses a message, or has it and all behind it offered again, at once after a time below 0; takes back what was told of
// it.
void tm_reject(tm_out *out, tm_message message, tm_slice reason);
void tm_retry(tm_out *out, tm_message message, tm_slice reason, int64_t after_ms);
bool tm_is_stopped(const tm_out *out); // whether a message is to be offered again

// Begins a new message, which is complete when the next one begins or the call ends. One that came from a message
// inherits its metadata, and is text or binary as that one is. What is appended to a text must be UTF-8.
tm_emission *tm_emit(tm_out *out, tm_message origin);
tm_emission *tm_emit_new(tm_out *out); // in `tick` and `finish`
void tm_emit_to(tm_emission *emission, tm_output output);
void tm_emit_binary(tm_emission *emission, bool binary);
void tm_emit_metadata(tm_emission *emission, tm_write key, tm_slice value);
void tm_append(tm_emission *emission, tm_slice piece);
void tm_append_int(tm_emission *emission, int64_t number);
void tm_append_number(tm_emission *emission, double number); // as JSON: null where it is no number
void tm_append_string(tm_emission *emission, tm_slice text); // as a JSON string, with quotes and escapes
uint8_t *tm_append_room(tm_emission *emission, size_t len);  // to be filled by the caller, at once

// ---- State that goes on in the next version of the plugin, or in another number of instances.

typedef struct {
  uint32_t number, of;
} tm_part;

bool tm_has(tm_part part, tm_slice key);
uint64_t tm_hash(tm_slice key);
// What `snapshot` gives: bytes of the plugin's own making, copied at once. Not called, there is no state.
void tm_save(tm_slice state);

typedef struct {
  void (*init)(tm_setup *setup); // has to be there
  // One of the two has to be there. If both are, `process_batch` is called alone.
  void (*process)(tm_message message, tm_out *out);
  void (*process_batch)(const tm_batch *batch, tm_out *out);
  // These may be NULL.
  void (*tick)(uint64_t now_us, tm_out *out);
  void (*finish)(tm_out *out);
  void (*snapshot)(void);
  void (*restore)(const tm_slice *snapshots, size_t count, tm_part part);
} tm_transform;

// ---- What the host offers. A component imports what it uses.

typedef enum { TM_TRACE, TM_DEBUG, TM_INFO, TM_WARN, TM_ERROR } tm_level;
void tm_log(tm_level level, tm_slice line);

typedef struct {
  tm_slice key;
  tm_slice value;  // absent: the key is removed
  uint64_t ttl_ms; // 0: until it is changed
} tm_change;

tm_slice tm_state_get(tm_slice key);
void tm_state_get_many(const tm_slice *keys, size_t count, tm_slice *values);
// What the host refuses is an error's text; absent if it did not.
tm_slice tm_state_set(tm_slice key, tm_slice value);
tm_slice tm_state_set_many(const tm_change *changes, size_t count);
void tm_state_delete(tm_slice key);
// At most `limit` keys that start with `prefix` and come after `after`, if that is not absent; how many there are.
size_t tm_state_keys(tm_slice prefix, tm_slice after, uint32_t limit, tm_slice *keys);

void tm_count_up(const char *counter, double by);
void tm_gauge(const char *gauge, double value);
void tm_observe(const char *histogram, double value);

uint64_t tm_now_us(void);
double tm_random(void); // uniform in [0, 1); not for secrets

typedef struct {
  tm_slice name, value;
} tm_pair;

typedef struct {
  tm_slice method, url;
  const tm_pair *headers;
  size_t header_count;
  tm_slice body;
  uint32_t timeout_ms; // 0: as long as the host allows
} tm_request;

typedef struct {
  tm_slice error; // why there is no answer; absent where there is one
  uint16_t status;
  const tm_pair *headers;
  size_t header_count;
  tm_slice body;
} tm_response;

tm_response tm_http_send(const tm_request *request);
void tm_http_send_all(const tm_request *requests, size_t count, tm_response *responses);

// What the host passed since the mark is given back, where a loop would keep too much until the call ends.
typedef struct {
  void *chunk;
  size_t used;
} tm_mark;
tm_mark tm_mark_now(void);
void tm_release(tm_mark mark);

// ---- Connectors: plugins that have the last word on what an endpoint dials.

typedef struct tm_dial tm_dial;

typedef struct {
  uint32_t number;    // 1 is the first since the last connection
  bool has_last;      // what the last dial came to, if there was one:
  tm_slice outcome, detail;
  int32_t status, close_code; // -1: none
  uint64_t lasted_ms;
} tm_attempt;

tm_slice tm_dial_url(const tm_dial *dial);
tm_slice tm_dial_header(const tm_dial *dial, tm_slice name);
void tm_dial_set_url(tm_dial *dial, tm_slice url);
void tm_dial_set_header(tm_dial *dial, tm_slice name, tm_slice value);
void tm_dial_send_first(tm_dial *dial, tm_slice text);
// Nothing is dialled now, for this reason; -1 is for as long as the configuration says.
void tm_dial_refuse(tm_dial *dial, tm_slice reason, int64_t retry_after_ms);

typedef struct {
  // These two have to be there.
  void (*init)(tm_setup *setup);
  void (*before_connect)(tm_dial *dial, const tm_attempt *attempt);
  void (*tick)(uint64_t now_us); // may be NULL
} tm_connector;

// ---- The exports: once, with the plugin, in one file.

#ifdef __wasm__
#define TM_EXPORT(name) __attribute__((__export_name__(name)))
#else
#define TM_EXPORT(name)
#endif
#define TM_TRANSFORMER "tidemill:plugin/transformer@0.1.0#"
#define TM_DIALLER "tidemill:plugin/dialler@0.1.0#"

#define TIDEMILL_TRANSFORM(plugin)                                                                     \
  TM_EXPORT(TM_TRANSFORMER "init")                                                                     \
  void *tm_export_init(uint8_t *config, size_t len, tm_pair *facts, size_t count) {                    \
    return tm_transform_init(&(plugin), (tm_slice){config, len}, facts, count);                        \
  }                                                                                                    \
  TM_EXPORT(TM_TRANSFORMER "process")                                                                  \
  void *tm_export_process(TM_BATCH_PARAMETERS) {                                                       \
    return tm_transform_process(&(plugin), TM_BATCH_ARGUMENTS);                                        \
  }                                                                                                    \
  TM_EXPORT(TM_TRANSFORMER "tick")                                                                     \
  void *tm_export_tick(uint64_t now_us) { return tm_transform_tick(&(plugin), now_us); }               \
  TM_EXPORT(TM_TRANSFORMER "finish")                                                                   \
  void *tm_export_finish(void) { return tm_transform_finish(&(plugin)); }                              \
  TM_EXPORT(TM_TRANSFORMER "snapshot")                                                                 \
  void *tm_export_snapshot(void) { return tm_transform_snapshot(&(plugin)); }                          \
  TM_EXPORT(TM_TRANSFORMER "restore")                                                                  \
  void *tm_export_restore(tm_slice *snapshots, size_t count, uint32_t part, uint32_t parts) {          \
    return tm_transform_restore(&(plugin), snapshots, count, (tm_part){part, parts});                  \
  }

#define TIDEMILL_CONNECTOR(connector)                                                                  \
  TM_EXPORT(TM_DIALLER "init")                                                                         \
  void *tm_export_init(uint8_t *config, size_t len, tm_pair *facts, size_t count) {                    \
    return tm_connector_init(&(connector), (tm_slice){config, len}, facts, count);                     \
  }                                                                                                    \
  TM_EXPORT(TM_DIALLER "before-connect")                                                               \
  void *tm_export_before_connect(void *attempt) {                                                      \
    return tm_connector_before_connect(&(connector), attempt);                                         \
  }                                                                                                    \
  TM_EXPORT(TM_DIALLER "tick")                                                                         \
  void *tm_export_tick(uint64_t now_us) { return tm_connector_tick(&(connector), now_us); }

// What the macros call; not for plugins. A batch is passed in its parts.
#define TM_BATCH_PARAMETERS                                                                            \
  uint32_t count, uint32_t has_payloads, uint32_t form, uint8_t *data, size_t data_len, uint32_t *ends, \
      size_t ends_len, uint32_t has_binary, uint8_t *binary, size_t binary_len, uint32_t has_times,    \
      uint64_t *times, size_t times_len, uint32_t has_columns, void *columns, size_t columns_len
#define TM_BATCH_ARGUMENTS                                                                             \
  count, has_payloads, form, data, data_len, ends, ends_len, has_binary, binary, binary_len, has_times, \
      times, times_len, has_columns, columns, columns_len
void *tm_transform_init(const tm_transform *plugin, tm_slice config, const tm_pair *facts, size_t count);
void *tm_transform_process(const tm_transform *plugin, TM_BATCH_PARAMETERS);
void *tm_transform_tick(const tm_transform *plugin, uint64_t now_us);
void *tm_transform_finish(const tm_transform *plugin);
void *tm_transform_snapshot(const tm_transform *plugin);
void *tm_transform_restore(const tm_transform *plugin, const tm_slice *snapshots, size_t count, tm_part part);
void *tm_connector_init(const tm_connector *plugin, tm_slice config, const tm_pair *facts, size_t count);
void *tm_connector_before_connect(const tm_connector *plugin, void *attempt);
void *tm_connector_tick(const tm_connector *plugin, uint64_t now_us);

#endif
