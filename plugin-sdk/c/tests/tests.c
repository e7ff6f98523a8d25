// The SDK's own tests, compiled natively: `cc -I. tests/tests.c -o tests && ./tests FOLDER`, where FOLDER is this one's
// parent. It says which tests there are, and ends at the first that fails.

#include "../tidemill.c"
#include "notional.c"

#include <stdio.h>

#define CHECK(condition)                                                                               \
  do {                                                                                                 \
    if (!(condition)) {                                                                                \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                          \
      exit(1);                                                                                         \
    }                                                                                                  \
  } while (0)

static void same(const char *file, int line, tm_slice got, const char *expected) {
  if (got.at && tm_equal(got, tm_str(expected))) return;
  fprintf(stderr, "%s:%d: got %s%.*s, want %s\n", file, line, got.at ? "" : "nothing", (int)got.len, (const char *)got.at,
          expected);
  exit(1);
}
#define SAME(got, expected) same(__FILE__, __LINE__, got, expected)

// ---- A host: one value in the state, and answers that a test reads.

static char told[256];
static tm_slice stored;
static uint8_t http_error;

void tm_import_log(uint32_t level, const void *text, size_t len) {
  snprintf(told, sizeof told, "%u %.*s", level, (int)len, (const char *)text);
}
void tm_import_get(const void *key, size_t len, void *to) {
  (void)key, (void)len;
  *(wire_option *)to = (wire_option){stored.at != NULL, listed(stored)};
}
void tm_import_get_many(const void *keys, size_t count, void *to) {
  (void)keys;
  wire_option *found = tm_cabi_realloc(NULL, 0, 8, count * sizeof *found);
  for (size_t i = 0; i < count; i++) found[i] = (wire_option){i % 2, listed(stored)};
  *(wire_list *)to = (wire_list){found, count};
}
void tm_import_set(const void *key, size_t key_len, const void *value, size_t len, void *to) {
  (void)key;
  bool is_too_long = key_len > 5;
  if (!is_too_long) stored = kept((tm_slice){value, len});
  *(wire_refusal *)to = (wire_refusal){is_too_long, listed(TM("too long"))};
}
void tm_import_set_many(const void *changes, size_t count, void *to) {
  const wire_change *last = (const wire_change *)changes + count - 1;
  stored = last->value.is_some ? kept(sliced(last->value.list)) : (tm_slice){0};
  snprintf(told, sizeof told, "%zu changes, the last for %llu ms", count, (unsigned long long)last->ttl_ms);
  *(wire_refusal *)to = (wire_refusal){0};
}
void tm_import_delete(const void *key, size_t len) {
  (void)key, (void)len;
  stored = (tm_slice){0};
}
void tm_import_keys(const void *prefix, size_t len, uint32_t has_after, const void *after, size_t after_len, uint32_t limit,
                    void *to) {
  (void)after, (void)after_len;
  wire_list *keys = tm_cabi_realloc(NULL, 0, 8, sizeof *keys);
  *keys = (wire_list){(void *)prefix, len};
  *(wire_list *)to = (wire_list){keys, !has_after && limit > 0};
}
void tm_import_add(const void *name, size_t len, double by) {
  snprintf(told, sizeof told, "%.*s += %g", (int)len, (const char *)name, by);
}
void tm_import_gauge(const void *name, size_t len, double value) {
  snprintf(told, sizeof told, "%.*s = %g", (int)len, (const char *)name, value);
}
void tm_import_observe(const void *name, size_t len, double value) {
  snprintf(told, sizeof told, "%.*s: %g", (int)len, (const char *)name, value);
}
uint64_t tm_import_now_us(void) { return 7; }
double tm_import_random(void) { return 0.25; }
static void answer(wire_answer *to, tm_slice url) {
  *to = (wire_answer){.is_error = http_error > 0};
  if (http_error > 0) {
    to->error.tag = http_error;
    if (http_error == 3)
      to->error.most = 16 << 20;
    else
      to->error.why = listed(url);
  } else {
    to->answer.status = 200;
    to->answer.body = listed(url);
  }
}
void tm_import_send(const void *method, size_t method_len, const void *url, size_t len, const void *headers, size_t count,
                    const void *body, size_t body_len, uint32_t timeout_ms, void *to) {
  (void)headers, (void)body;
  snprintf(told, sizeof told, "%.*s %zu %zu %u", (int)method_len, (const char *)method, count, body_len, timeout_ms);
  answer(to, (tm_slice){url, len});
}
void tm_import_send_all(const void *requests, size_t count, void *to) {
  wire_answer *answers = tm_cabi_realloc(NULL, 0, 8, count * sizeof *answers);
  for (size_t i = 0; i < count; i++) answer(&answers[i], sliced(((const wire_request *)requests)[i].url));
  *(wire_list *)to = (wire_list){answers, count};
}

// ---- A plugin whose callbacks are those of the test.

static void (*decide)(tm_message message, tm_out *out);
static tm_output first_output, second_output;
static tm_write marks[2];
static tm_edit_number number;
static tm_edit_json json;

static void ask(tm_setup *setup) {
  first_output = tm_ask_output(setup, "first");
  second_output = tm_ask_output(setup, "second");
  marks[0] = tm_ask_write(setup, "mark");
  marks[1] = tm_ask_write(setup, "other");
  number = tm_ask_edit_number(setup, "/number");
  json = tm_ask_edit_json(setup, "/json");
}
static void process_one(tm_message message, tm_out *out) { decide(message, out); }
static const tm_transform TESTED = {.init = ask, .process = process_one};

// What became of texts of one letter each, or the error.
static const wire_outcome *decided_on(const char *letters, void (*how)(tm_message, tm_out *)) {
  static uint32_t ends[64];
  uint32_t count = (uint32_t)strlen(letters);
  for (uint32_t i = 0; i < count; i++) ends[i] = i + 1;
  tm_transform_init(&TESTED, TM("{}"), NULL, 0);
  decide = how;
  tm_transform_process(&TESTED, count, 1, 0, (uint8_t *)letters, count, ends, count, 0, NULL, 0, 0, NULL, 0, 0, NULL, 0);
  return &decided.value;
}

// Of the value of a list of pieces in a row.
static tm_slice nth(wire_packed packed, uint32_t index) { return piece(packed.data.at, packed.ends.at, index); }
#define LIST(list, type, index) (((type *)(list).at)[index])

static void forward_but_b(tm_message message, tm_out *out) {
  if (*message.payload.at != 'b') tm_forward(out, message);
}
static void forward_one_elsewhere(tm_message message, tm_out *out) {
  tm_forward(out, message);
  if (*message.payload.at == 'b') tm_forward_to(out, message, second_output);
}

static void messages_are_forwarded_by_index(void) {
  CHECK(decided_on("acd", forward_but_b)->forward == FORWARD_ALL);
  CHECK(decided_on("bb", forward_but_b)->forward == FORWARD_NOTHING);
  const wire_outcome *some = decided_on("abcb", forward_but_b);
  CHECK(some->forward == FORWARD_THESE && some->forwarded.len == 2 && some->forward_outputs.len == 0);
  CHECK(LIST(some->forwarded, uint32_t, 0) == 0 && LIST(some->forwarded, uint32_t, 1) == 2);
  const wire_outcome *all = decided_on("abc", forward_one_elsewhere);
  CHECK(all->forward == FORWARD_ALL && all->forward_outputs.len == 3);
  CHECK(LIST(all->forward_outputs, uint16_t, 1) == 2 && LIST(all->forward_outputs, uint16_t, 2) == 0);
  CHECK(all->edits.len == 0 && all->forward_metadata.len == 0 && !all->has_emissions && !all->has_retry);
}

static void edit_before_it_is_forwarded(tm_message message, tm_out *out) {
  tm_set_number(out, message, number, message.index + 0.5);
  if (message.index != 2) tm_set_json(out, message, json, message.index == 3 ? TM("") : TM("[1]"));
  tm_set_number(out, message, number, message.index + 1.5);
  forward_but_b(message, out);
}
static void edit_all(tm_message message, tm_out *out) {
  tm_forward(out, message);
  tm_set_number(out, message, number, message.index);
}

static void only_what_goes_on_is_edited(void) {
  const wire_outcome *outcome = decided_on("abcd", edit_before_it_is_forwarded);
  CHECK(outcome->edits.len == 2);
  wire_values numbers = LIST(outcome->edits, wire_values, 0), texts = LIST(outcome->edits, wire_values, 1);
  CHECK(numbers.tag == VALUES_NUMBERS && numbers.numbers.len == 3);
  CHECK(LIST(numbers.numbers, double, 0) == 1.5 && LIST(numbers.numbers, double, 2) == 4.5);
  CHECK(texts.tag == VALUES_PACKED && texts.packed.marks.is_some);
  SAME(nth(texts.packed, 0), "[1]");
  uint8_t *absent = texts.packed.marks.list.at;
  CHECK(absent[0] == 0 && absent[1] == 1 && absent[2] == 0 && nth(texts.packed, 2).len == 0);
  const wire_outcome *all = decided_on("abc", edit_all);
  CHECK(LIST(all->edits, wire_values, 0).numbers.len == 3);
  wire_values unused = LIST(all->edits, wire_values, 1);
  CHECK(unused.packed.ends.len == 3 && LIST(unused.packed.marks.list, uint8_t, 2) == 1);
}

static void emit(tm_message message, tm_out *out) {
  tm_emission *emission = tm_emit(out, message);
  tm_append(emission, message.payload);
  tm_append_int(emission, -12);
  emission = tm_emit(out, message);
  if (message.index == 0) return;
  tm_emit_to(emission, first_output);
  tm_emit_binary(emission, true);
  tm_emit_metadata(emission, marks[0], TM("hot"));
  *tm_append_room(emission, 1) = 0xff;
}

static void emissions_are_written_in_a_row(void) {
  const wire_outcome *outcome = decided_on("ab", emit);
  CHECK(outcome->has_emissions);
  const wire_emissions *sent = &outcome->emissions;
  CHECK(sent->origins.len == 4 && LIST(sent->origins, uint32_t, 1) == 0 && LIST(sent->origins, uint32_t, 2) == 1);
  SAME(nth(sent->packed, 0), "a-12");
  SAME(nth(sent->packed, 1), "");
  SAME(nth(sent->packed, 2), "b-12");
  SAME(nth(sent->packed, 3), "\xff");
  CHECK(sent->packed.marks.is_some && LIST(sent->packed.marks.list, uint8_t, 3) == 1);
  CHECK(LIST(sent->outputs, uint16_t, 3) == 1 && LIST(sent->outputs, uint16_t, 2) == 0);
  CHECK(sent->metadata.len == 2 && LIST(sent->metadata, wire_writing, 1).tag == WRITING_INHERIT);
  wire_writing mark = LIST(sent->metadata, wire_writing, 0);
  CHECK(mark.tag == WRITING_SPARSE && mark.data.len == 1 && LIST(mark.data, wire_setting, 0).index == 3);
  SAME(sliced(LIST(mark.data, wire_setting, 0).value), "hot");
}

static void mark_all(tm_message message, tm_out *out) {
  forward_but_b(message, out);
  if (*message.payload.at != 'b') tm_set_metadata(out, message, marks[1], message.payload);
}
static void mark_some(tm_message message, tm_out *out) {
  tm_set_metadata(out, message, marks[1], TM("x"));
  tm_set_metadata(out, message, marks[0], TM("first"));
  tm_set_metadata(out, message, marks[0], message.payload);
  if (*message.payload.at == 'c') tm_set_metadata(out, message, marks[1], TM(""));
  forward_but_b(message, out);
}

static void metadata_is_a_row_if_all_have_it_and_a_list_if_not(void) {
  const wire_outcome *all = decided_on("abc", mark_all);
  wire_writing row = LIST(all->forward_metadata, wire_writing, 1);
  CHECK(row.tag == WRITING_PACKED && row.ends.len == 2);
  SAME(nth((wire_packed){row.data, row.ends, {0}}, 1), "c");
  const wire_outcome *some = decided_on("abc", mark_some);
  wire_writing list = LIST(some->forward_metadata, wire_writing, 0);
  CHECK(list.tag == WRITING_SPARSE && list.data.len == 2 && LIST(list.data, wire_setting, 1).index == 1);
  SAME(sliced(LIST(list.data, wire_setting, 1).value), "c");
  wire_writing second = LIST(some->forward_metadata, wire_writing, 1);
  SAME(sliced(LIST(second.data, wire_setting, 0).value), "x");
  SAME(sliced(LIST(second.data, wire_setting, 1).value), "");
}

static uint32_t refused;
static void tell_and_refuse(tm_message message, tm_out *out) {
  tm_forward_to(out, message, first_output);
  tm_set_number(out, message, number, message.index);
  tm_set_json(out, message, json, message.payload);
  tm_set_metadata(out, message, marks[0], message.payload);
  tm_append(tm_emit(out, message), message.payload);
  tm_emission *second = tm_emit(out, message);
  tm_emit_metadata(second, marks[1], TM("m"));
  if (message.index == refused) {
    tm_reject(out, message, TM("first"));
    tm_reject(out, message, TM("refused"));
  }
}

static void a_refused_message_takes_back_what_was_told_of_it(void) {
  for (refused = 0; refused < 3; refused++) {
    const wire_outcome *outcome = decided_on("abc", tell_and_refuse);
    uint32_t before = refused == 0, after = refused == 2 ? 1 : 2;
    CHECK(outcome->forwarded.len == 2 && LIST(outcome->forwarded, uint32_t, 0) == before);
    CHECK(LIST(outcome->forwarded, uint32_t, 1) == after && outcome->forward_outputs.len == 2);
    CHECK(LIST(LIST(outcome->edits, wire_values, 0).numbers, double, 1) == after);
    CHECK(nth(LIST(outcome->edits, wire_values, 1).packed, 1).at[0] == "abc"[after]);
    CHECK(outcome->emissions.origins.len == 4 && LIST(outcome->emissions.origins, uint32_t, 2) == after);
    wire_writing mark = LIST(outcome->emissions.metadata, wire_writing, 1);
    CHECK(mark.data.len == 2 && LIST(mark.data, wire_setting, 1).index == 3);
    CHECK(outcome->rejections.len == 1 && LIST(outcome->rejections, wire_rejection, 0).message == refused);
    SAME(sliced(LIST(outcome->rejections, wire_rejection, 0).reason), "refused");
  }
}

static void wait_at_b(tm_message message, tm_out *out) {
  tm_append(tm_emit(out, message), message.payload);
  if (*message.payload.at == 'b') tm_retry(out, message, TM("not yet"), 1500);
}

static void a_message_to_be_offered_again_ends_the_batch(void) {
  const wire_outcome *outcome = decided_on("abc", wait_at_b);
  CHECK(outcome->emissions.origins.len == 1 && outcome->has_retry);
  CHECK(outcome->retry.message == 1 && outcome->retry.after_ms == 1500);
  SAME(sliced(outcome->retry.reason), "not yet");
}

static tm_message earlier;
static void go_back(tm_message message, tm_out *out) {
  if (message.index == 0) earlier = message;
  tm_forward(out, message);
  if (message.index == 1) tm_forward(out, earlier);
}
static void fail(tm_message message, tm_out *out) {
  (void)out;
  tm_fail(message.index == 0 ? TM("out of order") : TM("not asked"));
}

static void a_failure_is_the_error_of_the_call(void) {
  decided_on("ab", fail);
  CHECK(decided.is_error);
  SAME(sliced(decided.why), "out of order");
  decided_on("ab", go_back);
  CHECK(decided.is_error);
  SAME(sliced(decided.why), "messages are decided on in their order");
  decided_on("ab", forward_but_b);
  CHECK(!decided.is_error);
}

// ---- Setup and configuration.

static void (*set_up)(tm_setup *setup);
static void set_up_plugin(tm_setup *setup) { set_up(setup); }
static const tm_transform SET_UP = {.init = set_up_plugin, .process = process_one};

static const char *described_with(const char *config, void (*how)(tm_setup *)) {
  static char why[512];
  set_up = how;
  tm_transform_init(&SET_UP, tm_str(config), (tm_pair[]){{TM("pipeline"), TM("p")}}, 1);
  if (!described.is_error) return NULL;
  snprintf(why, sizeof why, "%.*s", (int)described.why.len, (const char *)described.why.at);
  return why;
}

static void ask_twice(tm_setup *setup) {
  CHECK(tm_ask_output(setup, "a").number == 1 && tm_ask_output(setup, "b").number == 2);
  CHECK(tm_ask_output(setup, "a").number == 1 && tm_ask_output(setup, "default").number == 0);
  CHECK(tm_ask_number(setup, "/p").place == 1 && tm_ask_text(setup, "/p").place == 2);
  CHECK(tm_ask_number(setup, "/p").place == 1);
  SAME(tm_fact(setup, "pipeline"), "p");
  CHECK(!tm_fact(setup, "other").at);
  tm_tick_every_ms(setup, 0);
}
static void ask_wrongly(tm_setup *setup) { tm_ask_number(setup, "price"); }
static void ask_differently(tm_setup *setup) {
  tm_ask_edit_number(setup, "/x");
  tm_ask_edit_json(setup, "/x");
}

static void a_handle_is_the_same_for_the_same_name(void) {
  CHECK(!described_with("{}", ask_twice));
  CHECK(described.value.outputs.len == 2 && described.value.fields.len == 2 && described.value.tick_ms == 1);
  SAME(tm_str(described_with("{}", ask_wrongly)), "\"price\" is not a JSON pointer such as \"/data/p\"");
  SAME(tm_str(described_with("{}", ask_differently)), "the edit /x is asked for as a number and as JSON");
}

static const char *const MATCHES[] = {"all", "any", NULL};
static tm_slice by, match, rest;
static double bound, window;
static bool is_on;
static void configure(tm_setup *setup) {
  by = tm_str(tm_config_pointer(setup, "by", NULL));
  bound = tm_config_number(setup, "above", 100);
  window = tm_config_duration_ms(setup, "window", "1m");
  match = tm_config_one_of(setup, "match", MATCHES, "all");
  is_on = tm_config_bool(setup, "on", true);
  rest = tm_config_json(setup, "rest");
}
static void configure_nothing(tm_setup *setup) { (void)setup; }
static void configure_text(tm_setup *setup) { by = tm_config_text(setup, "by", NULL); }

static void keys_are_read_and_what_is_wrong_is_told_by_key(void) {
  CHECK(!described_with("{\"by\":\"/s\"}", configure));
  CHECK(bound == 100 && window == 60000 && is_on && !rest.at);
  SAME(by, "/s");
  SAME(match, "all");
  CHECK(!described_with(" { \"by\" : \"\", \"above\":-1.5e1,\"window\":\"1.5s\" , \"match\":\"any\",\"on\":false,"
                        "\"rest\":{\"a\":[\"}\\\"\",{}]} } ",
                        configure));
  CHECK(bound == -15 && window == 1500 && !is_on);
  SAME(match, "any");
  SAME(rest, "{\"a\":[\"}\\\"\",{}]}");
  CHECK(!described_with("{\"by\":\"\\u017c\\n\\ud83d\\udc22\\\"/\"}", configure_text));
  SAME(by, "ż\n🐢\"/");
  static const char *const CASES[][2] = {
      {"{}", "by is missing, which is a JSON pointer such as \"/data/p\""},
      {"{\"by\":\"s\"}", "by is \"s\", and must be a JSON pointer such as \"/data/p\""},
      {"{\"by\":\"\",\"above\":\"x\"}", "above is \"x\", and must be a number"},
      {"{\"by\":\"\",\"window\":\"1 m\"}",
       "window is \"1 m\", and must be a duration such as \"250ms\", \"10s\" or \"1m30s\""},
      {"{\"by\":\"\",\"match\":\"some\"}", "match is \"some\", and must be \"all\" or \"any\""},
      {"{\"by\":\"\",\"on\":1}", "on is 1, and must be true or false"},
      {"{\"by\":\"\",\"abov\":1}", "abov is not known: the keys are by, above, window, match, on, rest"},
  };
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    const char *why = described_with(CASES[i][0], configure);
    CHECK(why);
    SAME(tm_str(why), CASES[i][1]);
  }
  SAME(tm_str(described_with("{\"a\":1}", configure_nothing)), "a is not known: the plugin has no configuration");
}

static const char *folder;
static void durations_are_read_as_the_host_reads_them(void) {
  char path[1024], line[256];
  snprintf(path, sizeof path, "%s/../rust/tests/durations.txt", folder);
  FILE *cases = fopen(path, "r");
  CHECK(cases);
  size_t count = 0;
  while (fgets(line, sizeof line, cases)) {
    if (*line == '#') continue;
    char *end = strrchr(line, ' ');
    double expected = strncmp(end + 1, "none", 4) == 0 ? -1 : (double)strtoull(end + 1, NULL, 10);
    end[-1] = 0;
    if (duration_ns(line + 1) != expected) {
      fprintf(stderr, "%s: %g, want %g\n", line + 1, duration_ns(line + 1), expected);
      exit(1);
    }
    count++;
  }
  fclose(cases);
  CHECK(count > 30);
}

// ---- The rest.

static void numbers_and_strings(tm_message message, tm_out *out) {
  tm_emission *emission = tm_emit(out, message);
  static const double NUMBERS[] = {0.1, 1e21, -2.5, 5, 1.0 / 3, 61837.60999999999};
  for (size_t i = 0; i < sizeof NUMBERS / sizeof *NUMBERS; i++) {
    tm_append_number(emission, NUMBERS[i]);
    tm_append(emission, TM(" "));
  }
  tm_append_number(emission, __builtin_nan(""));
  tm_append_string(emission, TM("a\"\\\n\x1fż"));
  tm_append_int(emission, INT64_MIN);
}

static void what_is_appended_reads_back_as_the_same(void) {
  const wire_outcome *outcome = decided_on("a", numbers_and_strings);
  SAME(nth(outcome->emissions.packed, 0),
       "0.1 1e+21 -2.5 5 0.3333333333333333 61837.60999999999 null\"a\\\"\\\\\\u000a\\u001fż\"-9223372036854775808");
}

// The numbers are those of FNV-1a as its authors publish them.
static void shares_are_those_of_the_host(void) {
  CHECK(tm_hash(TM("")) == 0xcbf29ce484222325u && tm_hash(TM("a")) == 0xaf63dc4c8601ec8cu);
  CHECK(tm_hash(TM("foobar")) == 0x85944171f73967e8u);
  for (uint32_t of = 1; of < 5; of++) {
    uint32_t owners = 0;
    for (uint32_t i = 0; i < of; i++) owners += tm_has((tm_part){i, of}, TM("BTCUSDT"));
    CHECK(owners == 1);
  }
}

static void the_host_is_asked_and_told(void) {
  begin_call();
  tm_log(TM_WARN, TM("low"));
  SAME(tm_str(told), "3 low");
  tm_count_up("seen", 2);
  SAME(tm_str(told), "seen += 2");
  tm_gauge("depth", 1.5);
  SAME(tm_str(told), "depth = 1.5");
  tm_observe("size", 4);
  SAME(tm_str(told), "size: 4");
  CHECK(tm_now_us() == 7 && tm_random() == 0.25);
  CHECK(!tm_state_get(TM("a")).at && !tm_state_set(TM("a"), TM("one")).at);
  SAME(tm_state_get(TM("a")), "one");
  SAME(tm_state_set(TM("too long"), TM("")), "too long");
  tm_slice found[2];
  tm_state_get_many((tm_slice[]){TM("a"), TM("b")}, 2, found);
  CHECK(!found[0].at);
  SAME(found[1], "one");
  tm_change changes[] = {{TM("a"), {0}, 0}, {TM("b"), TM("two"), 250}};
  CHECK(!tm_state_set_many(changes, 2).at);
  SAME(tm_str(told), "2 changes, the last for 250 ms");
  CHECK(tm_state_keys(TM("b"), (tm_slice){0}, 9, found) == 1 && tm_state_keys(TM("b"), TM("b"), 9, found) == 0);
  SAME(found[0], "b");
  tm_state_delete(TM("b"));
  CHECK(!tm_state_get(TM("b")).at);
  tm_request requests[] = {{.method = TM("GET"), .url = TM("https://a/"), .timeout_ms = 5}, {.url = TM("https://b/")}};
  tm_response response = tm_http_send(requests), responses[2];
  SAME(tm_str(told), "GET 0 0 5");
  CHECK(!response.error.at && response.status == 200);
  http_error = 1;
  tm_http_send_all(requests, 2, responses);
  SAME(responses[1].error, "the request is denied: https://b/");
  http_error = 2;
  SAME(tm_http_send(requests).error, "the answer took too long");
  http_error = 3;
  SAME(tm_http_send(requests).error, "the answer has more than 16777216 bytes");
}

static void memory_is_given_back(void) {
  begin_call();
  void *before = tm_cabi_realloc(NULL, 0, 1, 100);
  tm_mark mark = tm_mark_now();
  for (int i = 0; i < 10; i++) memset(tm_cabi_realloc(NULL, 0, 8, 100000), 1, 100000);
  tm_release(mark);
  CHECK(arena == mark.chunk && arena->used == mark.used);
  uint8_t *grown = tm_cabi_realloc(before, 100, 4, 200);
  CHECK((uintptr_t)grown % 4 == 0);
  for (int i = 0; i < 10; i++) tm_cabi_realloc(NULL, 0, 8, 100000);
  is_over = true;
  begin_call();
  CHECK(arena->before == NULL && arena->used == 0 && arena->room >= 100000);
}

static void count_down(void) { tm_save(TM("41")); }
static void take(const tm_slice *snapshots, size_t count, tm_part part) {
  snprintf(told, sizeof told, "%zu %.*s %u/%u", count, (int)snapshots[0].len, (const char *)snapshots[0].at, part.number,
           part.of);
  if (count > 1) tm_fail(TM("not a count"));
}
static void say(tm_out *out) { tm_append(tm_emit_new(out), TM("end")); }
static const tm_transform STATEFUL = {.init = ask, .process = process_one, .snapshot = count_down, .restore = take, .finish = say};

static void state_and_the_end(void) {
  tm_transform_init(&STATEFUL, TM("{}"), NULL, 0);
  tm_transform_snapshot(&STATEFUL);
  CHECK(!saved.is_error && saved.value.is_some);
  SAME(sliced(saved.value.list), "41");
  tm_transform_restore(&STATEFUL, (tm_slice[]){TM("41")}, 1, (tm_part){0, 1});
  CHECK(!done.is_error);
  SAME(tm_str(told), "1 41 0/1");
  tm_transform_restore(&STATEFUL, (tm_slice[]){TM("a"), TM("b")}, 2, (tm_part){1, 2});
  CHECK(done.is_error);
  SAME(sliced(done.why), "not a count");
  tm_transform_finish(&STATEFUL);
  CHECK(emitted.value.is_some);
  SAME(nth(emitted.value.emissions.packed, 0), "end");
  tm_transform_tick(&STATEFUL, 1);
  CHECK(!emitted.is_error && !emitted.value.is_some);
  tm_transform_snapshot(&TESTED);
  CHECK(!saved.value.is_some);
}

static void dial_once(tm_dial *dial, const tm_attempt *attempt) {
  if (attempt->number == 2) tm_fail(TM("not now"));
  if (attempt->number > 2) tm_dial_refuse(dial, TM("too often"), 1500);
  if (attempt->has_last && attempt->status == 401) tm_dial_send_first(dial, attempt->outcome);
  SAME(tm_dial_header(dial, TM("authorization")), "old");
  SAME(tm_dial_url(dial), "wss://a/");
  tm_dial_set_url(dial, TM("wss://b/"));
  tm_dial_set_header(dial, TM("Authorization"), TM("new"));
}
static void not_alive(uint64_t now_us) {
  if (now_us > 1) tm_fail(TM("not alive"));
}
static const tm_connector DIALS = {.init = configure_nothing, .before_connect = dial_once, .tick = not_alive};

static void a_connector_changes_or_refuses_what_is_dialled(void) {
  tm_connector_init(&DIALS, TM("{}"), NULL, 0);
  CHECK(!connector_described.is_error);
  tm_pair headers[] = {{TM("x"), TM("1")}, {TM("AUTHORIZATION"), TM("old")}};
  wire_attempt attempt = {.dial = {.url = listed(TM("wss://a/")), .headers = {headers, 2}}, .number = 1};
  attempt.last.is_some = 1;
  attempt.last.ending = (wire_ending){.outcome = listed(TM("refused")), .status = {1, 401}};
  tm_connector_before_connect(&DIALS, &attempt);
  CHECK(!answered.is_error && answered.dial.headers.len == 2 && answered.dial.first_messages.len == 1);
  SAME(sliced(answered.dial.url), "wss://b/");
  SAME(LIST(answered.dial.headers, tm_pair, 1).value, "new");
  SAME(sliced(LIST(answered.dial.first_messages, wire_payload, 0).bytes), "refused");
  attempt.number = 2;
  tm_connector_before_connect(&DIALS, &attempt);
  CHECK(answered.is_error && !answered.refusal.has_retry);
  SAME(sliced(answered.refusal.reason), "not now");
  attempt.number = 3;
  tm_connector_before_connect(&DIALS, &attempt);
  CHECK(answered.is_error && answered.refusal.has_retry && answered.refusal.retry_after_ms == 1500);
  tm_connector_tick(&DIALS, 1);
  CHECK(!done.is_error);
  tm_connector_tick(&DIALS, 2);
  SAME(sliced(done.why), "not alive");
}

static void a_callback_that_is_missing_is_named(void) {
  tm_transform_init(&(tm_transform){.process = process_one}, TM("{\"a\":1}"), NULL, 0);
  CHECK(described.is_error);
  SAME(sliced(described.why),
       "the plugin has no .init: its tm_transform has to name the function, which may ask for nothing");
  tm_transform_init(&(tm_transform){.init = configure_nothing}, TM("{}"), NULL, 0);
  CHECK(described.is_error);
  SAME(sliced(described.why),
       "the plugin has neither .process nor .process_batch: its tm_transform has to name one of the functions");
  tm_transform_init(&(tm_transform){.init = configure_nothing, .process = process_one}, TM("{}"), NULL, 0);
  CHECK(!described.is_error);
  tm_connector_init(&(tm_connector){.before_connect = dial_once}, TM("{}"), NULL, 0);
  CHECK(connector_described.is_error);
  SAME(sliced(connector_described.why),
       "the plugin has no .init: its tm_connector has to name the function, which may ask for nothing");
  tm_connector_init(&(tm_connector){.init = configure_nothing}, TM("{}"), NULL, 0);
  CHECK(connector_described.is_error);
  SAME(sliced(connector_described.why),
       "the plugin has no .before_connect: its tm_connector has to name the function");
}

static void fields_come_in_and_edits_go_out(void) {
  tm_export_init((uint8_t *)"{\"above\":2}", 11, NULL, 0);
  CHECK(described.value.only_json && !described.value.payloads && described.value.edits.len == 1);
  double prices[] = {2.5, 1, __builtin_nan("")}, quantities[] = {3, 1, 1};
  wire_column columns[2] = {{.tag = 3}, {.tag = 3}};
  columns[0].field.numbers = (wire_list){prices, 3};
  columns[1].field.numbers = (wire_list){quantities, 3};
  tm_export_process(3, 0, 0, NULL, 0, NULL, 0, 0, NULL, 0, 0, NULL, 0, 1, columns, 2);
  CHECK(decided.value.forwarded.len == 1);
  CHECK(LIST(LIST(decided.value.edits, wire_values, 0).numbers, double, 0) == 7.5);
  tm_export_tick(1), tm_export_finish(), tm_export_snapshot(), tm_export_restore(NULL, 0, 0, 1);
  CHECK(!done.is_error);
}

static void messages_have_metadata_times_and_texts(void) {
  tm_transform_init(&TESTED, TM("{}"), NULL, 0);
  asked.reads.len = 0;
  PUSH(&asked.reads, wire_list, listed(TM("room")));
  wire_column columns[3] = {{.tag = COLUMN_SAME}, {.tag = 3}};
  columns[0].same = listed(TM("7"));
  columns[1].field = (wire_values){.tag = VALUES_PACKED,
                                   .packed = {{"ab", 2}, {(uint32_t[]){0, 2}, 2}, {1, {(uint8_t[]){1, 0}, 2}}}};
  uint8_t binary[] = {1, 0};
  uint64_t times[] = {5, 6};
  PUSH(&asked.fields, wire_field, ((wire_field){listed(TM("/x")), KIND_TEXT}));
  tm_batch batch = {.count = 2, .has_payloads = true, .data = (const uint8_t *)"xy", .ends = (uint32_t[]){1, 2},
                    .binary = binary, .times = times, .metadata = columns, .fields = columns + 1};
  batch_of_call = &batch;
  tm_message first = tm_message_at(&batch, 0), second = tm_message_at(&batch, 1);
  SAME(second.payload, "y");
  CHECK(!tm_is_text(first) && tm_is_text(second) && tm_received_us(second) == 6);
  SAME(tm_metadata(second, (tm_read){1}), "7");
  CHECK(!tm_get_text(first, (tm_text){1}).at);
  SAME(tm_get_text(second, (tm_text){1}), "ab");
  columns[0] = (wire_column){.tag = COLUMN_PACKED};
  columns[0].packed = (wire_packed){{"8", 1}, {(uint32_t[]){0, 1}, 2}, {0}};
  SAME(tm_metadata(first, (tm_read){1}), "");
  SAME(tm_metadata(second, (tm_read){1}), "8");
  CHECK(!failure.is_there);
  batch_of_call = NULL;
}

// What the callback does that is told as the error of the call.
static void (*wrongly)(tm_message message, tm_out *out);
static tm_setup *setup_of_init;
static tm_message message_before;

static void of_no_field(tm_message message, tm_out *out) { (void)out, tm_get_number(message, (tm_number){7}); }
static void of_a_text(tm_message message, tm_out *out) { (void)out, tm_get_number(message, (tm_number){1}); }
static void of_a_number(tm_message message, tm_out *out) { (void)out, tm_get_text(message, (tm_text){2}); }
static void of_an_unset_field(tm_message message, tm_out *out) { (void)out, tm_get_number(message, (tm_number){0}); }
static void with_an_unset_edit(tm_message message, tm_out *out) { tm_set_number(out, message, (tm_edit_number){0}, 1); }
static void with_an_unset_key(tm_message message, tm_out *out) { tm_set_metadata(out, message, (tm_write){0}, TM("")); }
static void of_no_numbers(tm_message message, tm_out *out) {
  (void)out;
  CHECK(tm_numbers(message.batch, (tm_number){7})[message.index] != 0);
}
static void of_no_key(tm_message message, tm_out *out) { (void)out, tm_metadata(message, (tm_read){0}); }
static void to_no_output(tm_message message, tm_out *out) { tm_forward_to(out, message, (tm_output){3}); }
static void with_no_edit(tm_message message, tm_out *out) { tm_set_number(out, message, (tm_edit_number){2}, 1); }
static void with_no_json(tm_message message, tm_out *out) { tm_set_json(out, message, (tm_edit_json){1}, TM("1")); }
static void with_no_write(tm_message message, tm_out *out) { tm_set_metadata(out, message, (tm_write){3}, TM("")); }
static void to_no_emission(tm_message message, tm_out *out) { (void)message, (void)out, tm_append(NULL, TM("a")); }
static void before_an_emission(tm_message message, tm_out *out) {
  (void)message;
  *tm_append_room(&out->emission, 1) = 'a';
}
static void emit_nowhere(tm_message message, tm_out *out) { tm_emit_to(tm_emit(out, message), (tm_output){3}); }
static void emit_with_no_key(tm_message message, tm_out *out) {
  tm_emit_metadata(tm_emit(out, message), (tm_write){9}, TM(""));
}
static void behind_the_last(tm_message message, tm_out *out) { tm_forward(out, tm_message_at(message.batch, 1)); }
static void of_another_call(tm_message message, tm_out *out) { (void)message, tm_emit(out, message_before); }
static void ask_later(tm_message message, tm_out *out) {
  (void)message, (void)out;
  CHECK(tm_ask_output(setup_of_init, "late").number == 0 && !tm_fact(setup_of_init, "pipeline").at);
}

static void ask_fields(tm_setup *setup) {
  setup_of_init = setup;
  ask(setup);
  tm_ask_text(setup, "/text");
  tm_ask_number(setup, "/number");
}
static void do_wrongly(tm_message message, tm_out *out) { wrongly(message, out); }
static const tm_transform WRONG = {.init = ask_fields, .process = do_wrongly};

static void a_handle_that_means_nothing_is_a_fault_that_says_so(void) {
  static const char A_FIELD[] = "a field is used that `init` has not asked for: it is what tm_ask_number gives there",
                    A_TEXT_FIELD[] =
                        "a field is used that `init` has not asked for: it is what tm_ask_text or tm_ask_json gives there",
                    AN_OUTPUT[] = "an output is used that `init` has not asked for: it is what tm_ask_output gives there",
                    A_WRITE[] = "a metadata key is used that `init` has not asked for: it is what tm_ask_write gives there",
                    NO_EMISSION[] = "something is written to an emission that was not begun: tm_emit and tm_emit_new give it",
                    NO_MESSAGE[] = "a message is used that this call was not given: messages are valid until `process` returns";
  static const struct {
    void (*wrongly)(tm_message message, tm_out *out);
    const char *told;
  } CASES[] = {
      {of_no_field, A_FIELD},
      {of_a_text, A_FIELD},
      {of_an_unset_field, A_FIELD},
      {of_a_number, A_TEXT_FIELD},
      {of_no_numbers, A_FIELD},
      {of_no_key, "a metadata key is used that `init` has not asked for: it is what tm_ask_read gives there"},
      {to_no_output, AN_OUTPUT},
      {with_no_edit, "an edit is used that `init` has not asked for: it is what tm_ask_edit_number gives there"},
      {with_no_json, "an edit is used that `init` has not asked for: it is what tm_ask_edit_json gives there"},
      {with_no_write, A_WRITE},
      {with_an_unset_key, A_WRITE},
      {with_an_unset_edit, "an edit is used that `init` has not asked for: it is what tm_ask_edit_number gives there"},
      {to_no_emission, NO_EMISSION},
      {before_an_emission, NO_EMISSION},
      {emit_nowhere, AN_OUTPUT},
      {emit_with_no_key, A_WRITE},
      {behind_the_last, NO_MESSAGE},
      {of_another_call, NO_MESSAGE},
      {ask_later, "what a plugin wants, it asks for in `init` and nowhere else"},
  };
  message_before = (tm_message){&(tm_batch){.count = 1}, 0, TM("")};
  tm_transform_init(&WRONG, TM("{}"), NULL, 0);
  double numbers[] = {1};
  wire_column columns[2] = {{.tag = 3}, {.tag = 3}};
  columns[0].field = (wire_values){.tag = VALUES_PACKED, .packed = {{"a", 1}, {(uint32_t[]){1}, 1}, {0}}};
  columns[1].field.numbers = (wire_list){numbers, 1};
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    wrongly = CASES[i].wrongly;
    tm_transform_process(&WRONG, 1, 0, 0, NULL, 0, NULL, 0, 0, NULL, 0, 0, NULL, 0, 1, columns, 2);
    CHECK(decided.is_error);
    SAME(sliced(decided.why), CASES[i].told);
  }
}

static void say_what_is_no_text(tm_message message, tm_out *out) {
  tm_slice text = TM("a \xff\xc3( \xed\xa0\x80 \xf4\x90\x80\x80 ż🐢\xe2\x82");
  if (message.index == 0) {
    tm_forward(out, message);
    tm_set_metadata(out, message, marks[0], text);
  } else if (message.index == 1) {
    tm_reject(out, message, text);
  } else {
    tm_retry(out, message, text, -5);
    tm_log(TM_WARN, text);
  }
}
static void fail_with_no_text(tm_message message, tm_out *out) { (void)message, (void)out, tm_fail(TM("\xff")); }

static void bytes_that_are_no_text_become_replacements(void) {
#define REPLACED "\xef\xbf\xbd"
  static const char CLEAN[] = "a " REPLACED REPLACED "( " REPLACED REPLACED REPLACED " " REPLACED REPLACED REPLACED REPLACED
                              " ż🐢" REPLACED REPLACED;
  const wire_outcome *outcome = decided_on("abc", say_what_is_no_text);
  SAME(nth((wire_packed){LIST(outcome->forward_metadata, wire_writing, 0).data,
                         LIST(outcome->forward_metadata, wire_writing, 0).ends, {0}}, 0), CLEAN);
  SAME(sliced(LIST(outcome->rejections, wire_rejection, 0).reason), CLEAN);
  SAME(sliced(outcome->retry.reason), CLEAN);
  CHECK(outcome->retry.after_ms == 0);
  CHECK(strcmp(told + 2, CLEAN) == 0);
  decided_on("a", fail_with_no_text);
  SAME(sliced(decided.why), REPLACED);
}

static void the_plugin_of_the_readme_is_the_one_that_is_tested(void) {
  static char readme[1 << 16], plugin[1 << 12];
  char path[1024];
  snprintf(path, sizeof path, "%s/README.md", folder);
  FILE *file = fopen(path, "r");
  CHECK(file && fread(readme, 1, sizeof readme - 1, file) > 0);
  fclose(file);
  snprintf(path, sizeof path, "%s/tests/notional.c", folder);
  file = fopen(path, "r");
  CHECK(file && fread(plugin, 1, sizeof plugin - 1, file) > 0);
  fclose(file);
  CHECK(strstr(readme, plugin));
}

#define TEST(name) {#name, name}
static const struct {
  const char *name;
  void (*run)(void);
} TESTS[] = {
    TEST(messages_are_forwarded_by_index),
    TEST(only_what_goes_on_is_edited),
    TEST(emissions_are_written_in_a_row),
    TEST(metadata_is_a_row_if_all_have_it_and_a_list_if_not),
    TEST(a_refused_message_takes_back_what_was_told_of_it),
    TEST(a_message_to_be_offered_again_ends_the_batch),
    TEST(a_failure_is_the_error_of_the_call),
    TEST(a_handle_is_the_same_for_the_same_name),
    TEST(keys_are_read_and_what_is_wrong_is_told_by_key),
    TEST(durations_are_read_as_the_host_reads_them),
    TEST(what_is_appended_reads_back_as_the_same),
    TEST(shares_are_those_of_the_host),
    TEST(the_host_is_asked_and_told),
    TEST(memory_is_given_back),
    TEST(state_and_the_end),
    TEST(a_connector_changes_or_refuses_what_is_dialled),
    TEST(a_callback_that_is_missing_is_named),
    TEST(fields_come_in_and_edits_go_out),
    TEST(messages_have_metadata_times_and_texts),
    TEST(a_handle_that_means_nothing_is_a_fault_that_says_so),
    TEST(bytes_that_are_no_text_become_replacements),
    TEST(the_plugin_of_the_readme_is_the_one_that_is_tested),
};

int main(int count, char **arguments) {
  folder = count > 1 ? arguments[1] : ".";
  for (size_t i = 0; i < sizeof TESTS / sizeof *TESTS; i++) {
    printf("test %s\n", TESTS[i].name);
    fflush(stdout);
    TESTS[i].run();
  }
  printf("%zu tests passed\n", sizeof TESTS / sizeof *TESTS);
}
