// What stands between the host's calls and a plugin in C: the contract of wit/transform.wit as it lies in memory.
//
// A call allocates nothing once batches have been as large: what the host passes lies in an arena that is emptied when
// the call ends, and what it gets back in buffers that are used again.

#include "tidemill.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- What crosses, as the component model lays it out. Pointers have the size of the machine, for native tests.

typedef struct {
  void *at;
  size_t len;
} wire_list;
typedef struct {
  uint8_t is_some;
  wire_list list;
} wire_option;
// Also `optional-texts`, and `texts` without the last.
typedef struct {
  wire_list data, ends;
  wire_option marks;
} wire_packed;
typedef struct {
  uint8_t tag;
  union {
    wire_list numbers;
    wire_packed packed;
  };
} wire_values;
typedef struct {
  uint8_t tag;
  union {
    wire_list same;
    wire_packed packed;
    wire_values field;
  };
} wire_column;
typedef struct {
  uint32_t index;
  wire_list value;
} wire_setting;
typedef struct {
  uint8_t tag;
  wire_list data, ends; // of `packed`; of `sparse` the first is the list
} wire_writing;
typedef struct {
  uint8_t form;
  wire_packed packed;
  wire_list origins, outputs, metadata;
} wire_emissions;
typedef struct {
  uint32_t message;
  wire_list reason;
} wire_rejection;
typedef struct {
  uint8_t forward;
  wire_list forwarded, forward_outputs, forward_metadata, edits;
  uint8_t has_emissions;
  wire_emissions emissions;
  wire_list rejections;
  uint8_t has_retry;
  struct {
    uint32_t message;
    wire_list reason;
    uint32_t after_ms;
  } retry;
} wire_outcome;
typedef struct {
  wire_list pointer;
  uint8_t kind;
} wire_field;
typedef struct {
  wire_list outputs, reads, writes, fields, edits;
  uint8_t only_json, form, payloads, times;
  uint32_t tick_ms;
  wire_list options;
} wire_description;
typedef struct {
  wire_list url, headers, subprotocols, first_messages, options;
} wire_dial;
typedef struct {
  wire_list outcome, detail;
  struct {
    uint8_t is_some;
    uint16_t value;
  } status, close_code;
  uint64_t lasted_ms;
} wire_ending;
typedef struct {
  wire_dial dial;
  uint32_t number;
  struct {
    uint8_t is_some;
    wire_ending ending;
  } last;
  wire_list facts;
} wire_attempt;
typedef struct {
  uint8_t is_binary;
  wire_list bytes;
} wire_payload;
typedef struct {
  wire_list key;
  wire_option value;
  uint64_t ttl_ms;
} wire_change;
typedef struct {
  wire_list method, url, headers, body;
  uint32_t timeout_ms;
} wire_request;
typedef struct {
  uint8_t is_error;
  union {
    struct {
      uint16_t status;
      wire_list headers, body;
    } answer;
    struct {
      uint8_t tag;
      union {
        wire_list why;
        uint64_t most;
      };
    } error;
  };
} wire_answer;

enum { FORWARD_NOTHING, FORWARD_ALL, FORWARD_THESE };
enum { COLUMN_SAME, COLUMN_PACKED };
enum { VALUES_NUMBERS, VALUES_PACKED };
enum { WRITING_INHERIT, WRITING_PACKED = 2, WRITING_SPARSE = 4 };
enum { KIND_NUMBER, KIND_TEXT, KIND_JSON };

static const uint8_t NOTHING[1];

static wire_list listed(tm_slice slice) { return (wire_list){(void *)slice.at, slice.len}; }
static tm_slice sliced(wire_list list) { return (tm_slice){list.len > 0 ? list.at : NOTHING, list.len}; }
static tm_slice optional(wire_option option) { return option.is_some ? sliced(option.list) : (tm_slice){0}; }

// ---- Memory.

// A list that grows.
typedef struct {
  void *at;
  size_t len, room;
} buffer;

static void *extend(buffer *to, size_t more, size_t size) {
  size_t needed = to->len + more;
  if (needed > to->room) {
    to->room = needed > 2 * to->room ? needed : 2 * to->room;
    to->at = realloc(to->at, to->room * size);
    if (!to->at) abort();
  }
  void *end = (uint8_t *)to->at + to->len * size;
  to->len = needed;
  return end;
}

#define PUSH(to, type, value) (*(type *)extend(to, 1, sizeof(type)) = (value))
#define AT(from, type, index) (((type *)(from).at)[index])

static wire_list whole(const buffer *from) { return (wire_list){from->at, from->len}; }

// Appends to a buffer of bytes.
static void put(buffer *to, tm_slice piece) {
  if (piece.len > 0) memcpy(extend(to, piece.len, 1), piece.at, piece.len);
}

// The length of the character at the beginning of bytes; 0 where there is none.
static size_t character(const uint8_t *at, size_t len) {
  uint8_t lead = *at;
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  size_t length = 2 + (lead >= 0xe0) + (lead >= 0xf0);
  if (length > len) return 0;
  uint8_t least = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80, most = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  if (at[1] < least || at[1] > most) return 0;
  for (size_t i = 2; i < length; i++)
    if ((at[i] & 0xc0) != 0x80) return 0;
  return length;
}

// Appends text. Bytes that are not UTF-8, which would be a trap when they cross, become U+FFFD.
static void put_text(buffer *to, tm_slice text) {
  size_t start = 0;
  for (size_t i = 0; i < text.len;) {
    size_t length = character(text.at + i, text.len - i);
    if (length == 0) {
      put(to, (tm_slice){text.at + start, i - start});
      put(to, TM("\xef\xbf\xbd"));
      start = i + 1;
    }
    i += length > 0 ? length : 1;
  }
  put(to, (tm_slice){text.at + start, text.len - start});
}

// What lives as long as the instance.
static tm_slice kept(tm_slice piece) {
  uint8_t *copy = malloc(piece.len + 1);
  if (!copy) abort();
  if (piece.len > 0) memcpy(copy, piece.at, piece.len);
  copy[piece.len] = 0;
  return (tm_slice){copy, piece.len};
}

// What the host passes in the course of a call: chunks, of which the newest is the largest.
typedef struct chunk {
  struct chunk *before;
  size_t used, room;
  _Alignas(16) uint8_t bytes[];
} chunk;

enum { LEAST_CHUNK = 16 << 10 };
static chunk *arena;

static void *arena_take(size_t size, size_t align) {
  size_t start = arena ? (arena->used + align - 1) & ~(align - 1) : 0;
  if (!arena || start + size > arena->room) {
    size_t room = arena ? 2 * arena->room : LEAST_CHUNK;
    if (room < size) room = size;
    chunk *more = malloc(sizeof(chunk) + room);
    if (!more) abort();
    *more = (chunk){arena, 0, room};
    arena = more;
    start = 0;
  }
  arena->used = start + size;
  return arena->bytes + start;
}

tm_mark tm_mark_now(void) { return (tm_mark){arena, arena ? arena->used : 0}; }

void tm_release(tm_mark mark) {
  if (mark.chunk) {
    while (arena != mark.chunk) {
      chunk *before = arena->before;
      free(arena);
      arena = before;
    }
    arena->used = mark.used;
  } else if (arena) {
    // The newest is the largest: the next call may do with it.
    while (arena->before) {
      chunk *before = arena->before;
      arena->before = before->before;
      free(before);
    }
    arena->used = 0;
  }
}

// What the call before gave back lies in the arena, too, until the host has read it: so the arena is emptied when
// something is passed next.
static bool is_over;

static void empty_arena(void) {
  if (is_over) tm_release((tm_mark){0});
  is_over = false;
}

#ifdef __wasm__
TM_EXPORT("cabi_realloc")
#endif
void *tm_cabi_realloc(void *old, size_t old_size, size_t align, size_t new_size) {
  empty_arena();
  void *taken = arena_take(new_size, align);
  if (old_size > 0) memcpy(taken, old, old_size < new_size ? old_size : new_size);
  return taken;
}

// ---- Small things.

tm_slice tm_str(const char *text) { return (tm_slice){(const uint8_t *)text, strlen(text)}; }
bool tm_equal(tm_slice a, tm_slice b) { return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0); }

uint64_t tm_hash(tm_slice key) {
  uint64_t hash = 14695981039346656037u;
  for (size_t i = 0; i < key.len; i++) hash = (hash ^ key.at[i]) * 1099511628211u;
  return hash;
}

bool tm_has(tm_part part, tm_slice key) { return part.of <= 1 || tm_hash(key) % part.of == part.number; }

static struct {
  bool is_there;
  buffer text;
} failure;

void tm_fail(tm_slice why) {
  if (failure.is_there) return;
  failure.is_there = true;
  put_text(&failure.text, why);
}

// Fails with pieces in a row, of which the last is NULL.
static void fail_with(const tm_slice *pieces, size_t count) {
  if (failure.is_there) return;
  failure.is_there = true;
  for (size_t i = 0; i < count; i++) put_text(&failure.text, pieces[i]);
}
#define FAIL(...) fail_with((tm_slice[]){__VA_ARGS__}, sizeof((tm_slice[]){__VA_ARGS__}) / sizeof(tm_slice))

static void begin_call(void) {
  empty_arena();
  failure.is_there = false;
  failure.text.len = 0;
}

// ---- JSON, for the configuration: a reader that goes over values, since the host has checked them.

static const uint8_t *skip_space(const uint8_t *at, const uint8_t *end) {
  while (at < end && (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r')) at++;
  return at;
}

static const uint8_t *skip_string(const uint8_t *at, const uint8_t *end) {
  for (at++; at < end && *at != '"'; at++)
    if (*at == '\\') at++;
  return at < end ? at + 1 : end;
}

static const uint8_t *skip_value(const uint8_t *at, const uint8_t *end) {
  size_t depth = 0;
  do {
    at = skip_space(at, end);
    if (at >= end) return end;
    if (*at == '"') {
      at = skip_string(at, end);
    } else if (*at == '{' || *at == '[') {
      depth++;
      at++;
    } else if (*at == '}' || *at == ']') {
      depth--;
      at++;
    } else if (*at == ',' || *at == ':') {
      at++;
    } else {
      while (at < end && !strchr(",:]}[{ \n\t\r", *at)) at++;
    }
  } while (depth > 0);
  return at;
}

// Of an object: calls with each key, as it stands between its quotes, and its value.
static bool next_entry(const uint8_t **at, const uint8_t *end, tm_slice *key, tm_slice *value) {
  *at = skip_space(*at, end);
  if (*at < end && (**at == '{' || **at == ',')) *at = skip_space(*at + 1, end);
  if (*at >= end || **at != '"') return false;
  const uint8_t *after = skip_string(*at, end);
  *key = (tm_slice){*at + 1, (size_t)(after - *at) - 2};
  const uint8_t *start = skip_space(skip_space(after, end) + 1, end);
  *at = skip_value(start, end);
  *value = (tm_slice){start, (size_t)(*at - start)};
  return true;
}

static unsigned hex(const uint8_t *digits) {
  unsigned value = 0;
  for (int i = 0; i < 4; i++) {
    uint8_t digit = digits[i];
    value = value << 4 | (digit <= '9' ? digit - '0' + 0u : (digit | 32u) - 'a' + 10u);
  }
  return value;
}

// What a JSON string says, kept.
static tm_slice unquoted(tm_slice json) {
  uint8_t *text = (uint8_t *)kept(json).at, *to = text;
  for (const uint8_t *at = json.at + 1, *end = json.at + json.len - 1; at < end; at++) {
    if (*at != '\\') {
      *to++ = *at;
      continue;
    }
    static const char ESCAPES[] = "b\bf\fn\nr\rt\t";
    const char *escape = *++at ? strchr(ESCAPES, *at) : NULL;
    if (*at != 'u') {
      *to++ = escape ? (uint8_t)escape[1] : *at;
      continue;
    }
    unsigned point = hex(at + 1);
    at += 4;
    if (point >= 0xd800 && point < 0xdc00 && at + 6 < end && at[1] == '\\' && at[2] == 'u') {
      point = 0x10000 + ((point - 0xd800) << 10) + (hex(at + 3) - 0xdc00);
      at += 6;
    }
    if (point < 0x80) {
      *to++ = point;
    } else if (point < 0x800) {
      *to++ = 0xc0 | point >> 6;
      *to++ = 0x80 | (point & 0x3f);
    } else {
      if (point < 0x10000) {
        *to++ = 0xe0 | point >> 12;
      } else {
        *to++ = 0xf0 | point >> 18;
        *to++ = 0x80 | (point >> 12 & 0x3f);
      }
      *to++ = 0x80 | (point >> 6 & 0x3f);
      *to++ = 0x80 | (point & 0x3f);
    }
  }
  *to = 0;
  return (tm_slice){text, (size_t)(to - text)};
}

// ---- Setup.

struct tm_setup {
  tm_slice config;
  const tm_pair *facts;
  size_t fact_count;
  buffer outputs, reads, writes, edits; // names as wire_list
  buffer fields, edit_is_json;
  buffer asked; // keys of the configuration
  bool is_open, knows_all, only_json, guards, without_payloads, times;
  uint32_t tick_ms;
};

static tm_setup asked;

// Whether the plugin is being made: what it asks for later, nobody hears.
static bool is_asking(const tm_setup *setup) {
  bool is_open = setup == &asked && asked.is_open;
  if (!is_open) tm_fail(TM("what a plugin wants, it asks for in `init` and nowhere else"));
  return is_open;
}

static uint32_t place_of(buffer *names, const char *name) {
  tm_slice wanted = tm_str(name);
  for (uint32_t i = 0; i < names->len; i++)
    if (tm_equal(sliced(AT(*names, wire_list, i)), wanted)) return i;
  PUSH(names, wire_list, listed(kept(wanted)));
  return (uint32_t)names->len - 1;
}

static bool is_pointer(tm_slice text) {
  if (text.len > 0 && *text.at != '/') return false;
  for (size_t i = 0; i < text.len; i++)
    if (text.at[i] == '~' && (i + 1 == text.len || (text.at[i + 1] != '0' && text.at[i + 1] != '1'))) return false;
  return true;
}

static void check_pointer(const char *pointer) {
  if (!is_pointer(tm_str(pointer))) FAIL(TM("\""), tm_str(pointer), TM("\" is not a JSON pointer such as \"/data/p\""));
}

tm_output tm_ask_output(tm_setup *setup, const char *name) {
  if (!is_asking(setup)) return (tm_output){0};
  if (strcmp(name, "default") == 0) return (tm_output){0};
  return (tm_output){(uint16_t)(place_of(&setup->outputs, name) + 1)};
}
tm_read tm_ask_read(tm_setup *setup, const char *key) {
  return (tm_read){is_asking(setup) ? place_of(&setup->reads, key) + 1 : 0};
}
tm_write tm_ask_write(tm_setup *setup, const char *key) {
  return (tm_write){is_asking(setup) ? place_of(&setup->writes, key) + 1 : 0};
}

static uint32_t ask_field(tm_setup *setup, const char *pointer, uint8_t kind) {
  if (!is_asking(setup)) return 0;
  check_pointer(pointer);
  for (uint32_t i = 0; i < setup->fields.len; i++) {
    wire_field *known = &AT(setup->fields, wire_field, i);
    if (known->kind == kind && tm_equal(sliced(known->pointer), tm_str(pointer))) return i + 1;
  }
  PUSH(&setup->fields, wire_field, ((wire_field){listed(kept(tm_str(pointer))), kind}));
  return (uint32_t)setup->fields.len;
}
tm_number tm_ask_number(tm_setup *setup, const char *pointer) {
  return (tm_number){ask_field(setup, pointer, KIND_NUMBER)};
}
tm_text tm_ask_text(tm_setup *setup, const char *pointer) { return (tm_text){ask_field(setup, pointer, KIND_TEXT)}; }
tm_text tm_ask_json(tm_setup *setup, const char *pointer) { return (tm_text){ask_field(setup, pointer, KIND_JSON)}; }

static uint32_t ask_edit(tm_setup *setup, const char *pointer, bool is_json) {
  if (!is_asking(setup)) return 0;
  check_pointer(pointer);
  uint32_t place = place_of(&setup->edits, pointer);
  if (place == setup->edit_is_json.len) PUSH(&setup->edit_is_json, bool, is_json);
  if (AT(setup->edit_is_json, bool, place) != is_json)
    FAIL(TM("the edit "), tm_str(pointer), TM(" is asked for as a number and as JSON"));
  return place + 1;
}
tm_edit_number tm_ask_edit_number(tm_setup *setup, const char *pointer) {
  return (tm_edit_number){ask_edit(setup, pointer, false)};
}
tm_edit_json tm_ask_edit_json(tm_setup *setup, const char *pointer) {
  return (tm_edit_json){ask_edit(setup, pointer, true)};
}

void tm_only_json(tm_setup *setup) { setup->only_json = true; }
void tm_guards(tm_setup *setup) { setup->guards = true; }
void tm_without_payloads(tm_setup *setup) { setup->without_payloads = true; }
void tm_times(tm_setup *setup) { setup->times = true; }
void tm_tick_every_ms(tm_setup *setup, uint32_t ms) { setup->tick_ms = ms > 0 ? ms : 1; }

tm_slice tm_fact(const tm_setup *setup, const char *name) {
  if (!is_asking(setup)) return (tm_slice){0};
  for (size_t i = 0; i < setup->fact_count; i++)
    if (tm_equal(setup->facts[i].name, tm_str(name))) return setup->facts[i].value;
  return (tm_slice){0};
}

// ---- Configuration.

static const char A_TEXT[] = "a text", A_NUMBER[] = "a number", A_BOOL[] = "true or false",
                  A_POINTER[] = "a JSON pointer such as \"/data/p\"",
                  A_DURATION[] = "a duration such as \"250ms\", \"10s\" or \"1m30s\"";

static void wrong(const char *key, tm_slice value, const char *expected) {
  FAIL(tm_str(key), TM(" is "), value, TM(", and must be "), tm_str(expected));
}

// The value of a key; absent where it is not there, which is wrong if it is required.
static tm_slice entry(tm_setup *setup, const char *key, bool is_required, const char *expected) {
  place_of(&setup->asked, key);
  const uint8_t *at = setup->config.at, *end = at + setup->config.len;
  tm_slice known, value, found = {0};
  while (next_entry(&at, end, &known, &value))
    if (tm_equal(known, tm_str(key))) found = value;
  if (!found.at && is_required) FAIL(tm_str(key), TM(" is missing, which is "), tm_str(expected));
  return found;
}

tm_slice tm_config_text(tm_setup *setup, const char *key, const char *otherwise) {
  tm_slice value = entry(setup, key, !otherwise, A_TEXT);
  if (value.at && *value.at == '"') return unquoted(value);
  if (value.at) wrong(key, value, A_TEXT);
  return otherwise ? tm_str(otherwise) : TM("");
}

tm_slice tm_config_one_of(tm_setup *setup, const char *key, const char *const *texts, const char *otherwise) {
  buffer expected = {0};
  for (const char *const *text = texts; *text; text++) {
    put(&expected, text == texts ? TM("\"") : TM(" or \""));
    put(&expected, tm_str(*text));
    put(&expected, TM("\""));
  }
  PUSH(&expected, uint8_t, 0);
  tm_slice value = entry(setup, key, !otherwise, expected.at);
  tm_slice found = value.at && *value.at == '"' ? unquoted(value) : (tm_slice){0};
  bool is_known = false;
  for (const char *const *text = texts; *text; text++) is_known |= found.at && tm_equal(found, tm_str(*text));
  if (value.at && !is_known) wrong(key, value, expected.at);
  free(expected.at);
  return is_known ? found : otherwise ? tm_str(otherwise) : TM("");
}

double tm_config_number(tm_setup *setup, const char *key, double otherwise) {
  tm_slice value = entry(setup, key, otherwise != otherwise, A_NUMBER);
  if (!value.at) return otherwise;
  if (*value.at == '-' || (*value.at >= '0' && *value.at <= '9')) return strtod((const char *)kept(value).at, NULL);
  wrong(key, value, A_NUMBER);
  return 0;
}

bool tm_config_bool(tm_setup *setup, const char *key, bool otherwise) {
  tm_slice value = entry(setup, key, false, A_BOOL);
  if (!value.at) return otherwise;
  bool is_true = tm_equal(value, TM("true"));
  if (!is_true && !tm_equal(value, TM("false"))) wrong(key, value, A_BOOL);
  return is_true;
}

// The nanoseconds of a duration; below 0 where it is none. As the host has it: numbers with the units d, h, m, s, ms,
// us and ns, each at most once and in this order, which come out whole.
static double duration_ns(const char *at) {
  static const struct {
    const char *name;
    uint64_t ns;
  } UNITS[] = {{"d", 86400000000000}, {"h", 3600000000000}, {"m", 60000000000}, {"s", 1000000000},
               {"ms", 1000000},       {"us", 1000},         {"ns", 1}};
  enum { MOST_PLACES = 18 };
  unsigned __int128 total = 0;
  size_t next = 0;
  do {
    unsigned __int128 number = 0, scale = 1;
    size_t places = 0;
    const char *start = at;
    for (; *at >= '0' && *at <= '9'; at++) {
      number = 10 * number + (unsigned)(*at - '0');
      if (number > UINT64_MAX) return -1;
    }
    if (at == start) return -1;
    if (*at == '.') {
      for (at++; *at >= '0' && *at <= '9'; at++, places++) {
        if (places == MOST_PLACES) return -1;
        number = 10 * number + (unsigned)(*at - '0');
        scale *= 10;
      }
      if (places == 0) return -1;
    }
    size_t len = 0;
    while ((at[len] >= 'a' && at[len] <= 'z') || (at[len] >= 'A' && at[len] <= 'Z')) len++;
    while (next < 7 && (strlen(UNITS[next].name) != len || strncmp(UNITS[next].name, at, len) != 0)) next++;
    if (next == 7) return -1;
    // Below 2^64 * 10^18, times the unit: divided before it can overflow.
    unsigned __int128 ns = UNITS[next].ns, rest = number % scale * ns;
    if (rest % scale != 0 || number / scale > UINT64_MAX / ns) return -1;
    total += number / scale * ns + rest / scale;
    at += len;
    next++;
  } while (*at);
  return total > UINT64_MAX ? -1 : (double)total;
}

double tm_config_duration_ms(tm_setup *setup, const char *key, const char *otherwise) {
  tm_slice value = entry(setup, key, !otherwise, A_DURATION);
  if (!value.at) return otherwise ? duration_ns(otherwise) / 1e6 : 0;
  double ns = *value.at == '"' ? duration_ns((const char *)unquoted(value).at) : -1;
  if (ns < 0) wrong(key, value, A_DURATION);
  return ns / 1e6;
}

const char *tm_config_pointer(tm_setup *setup, const char *key, const char *otherwise) {
  tm_slice value = entry(setup, key, !otherwise, A_POINTER);
  if (!value.at) return otherwise ? otherwise : "";
  tm_slice text = *value.at == '"' ? unquoted(value) : TM("?");
  if (!is_pointer(text)) wrong(key, value, A_POINTER);
  return is_pointer(text) ? (const char *)text.at : "";
}

tm_slice tm_config_json(tm_setup *setup, const char *key) { return entry(setup, key, false, ""); }

tm_slice tm_config_all(tm_setup *setup) {
  setup->knows_all = true;
  return setup->config;
}

// What was not asked for is refused.
static void check_keys(tm_setup *setup) {
  const uint8_t *at = setup->config.at, *end = at + setup->config.len;
  tm_slice key, value;
  while (!setup->knows_all && !failure.is_there && next_entry(&at, end, &key, &value)) {
    bool is_known = false;
    for (size_t i = 0; i < setup->asked.len; i++) is_known |= tm_equal(sliced(AT(setup->asked, wire_list, i)), key);
    if (is_known) continue;
    FAIL(key, TM(" is not known: "), setup->asked.len > 0 ? TM("the keys are ") : TM("the plugin has no configuration"));
    for (size_t i = 0; i < setup->asked.len; i++) {
      if (i > 0) put(&failure.text, TM(", "));
      put(&failure.text, sliced(AT(setup->asked, wire_list, i)));
    }
  }
}

// ---- Messages.

struct tm_batch {
  uint32_t count;
  bool has_payloads;
  const uint8_t *data;
  const uint32_t *ends;
  const uint8_t *binary;
  const uint64_t *times;
  const wire_column *metadata, *fields;
};

static tm_slice piece(const void *data, const uint32_t *ends, uint32_t index) {
  uint32_t start = index == 0 ? 0 : ends[index - 1];
  return (tm_slice){(const uint8_t *)data + start, ends[index] - start};
}

// Handles are looked at when they are used: one that means nothing would lead anywhere in the memory.

static const tm_batch *batch_of_call;

static bool is_message(tm_message message) {
  bool is = batch_of_call && message.batch == batch_of_call && message.index < batch_of_call->count;
  if (!is) tm_fail(TM("a message is used that this call was not given: messages are valid until `process` returns"));
  return is;
}

static bool is_asked(bool is, tm_slice what, tm_slice function) {
  if (!is) FAIL(what, TM(" is used that `init` has not asked for: it is what "), function, TM(" gives there"));
  return is;
}

// A handle that nothing has set is 0, and stands for no place.
static bool is_place(uint32_t handle, const buffer *of) { return handle > 0 && handle <= of->len; }

static bool is_field(uint32_t field, bool is_number) {
  bool is = is_place(field, &asked.fields) && (AT(asked.fields, wire_field, field - 1).kind == KIND_NUMBER) == is_number;
  return is_asked(is, TM("a field"), is_number ? TM("tm_ask_number") : TM("tm_ask_text or tm_ask_json"));
}

static bool is_edit(uint32_t edit, bool is_json) {
  bool is = is_place(edit, &asked.edits) && AT(asked.edit_is_json, bool, edit - 1) == is_json;
  return is_asked(is, TM("an edit"), is_json ? TM("tm_ask_edit_json") : TM("tm_ask_edit_number"));
}

static bool is_output(tm_output output) {
  return is_asked(output.number <= asked.outputs.len, TM("an output"), TM("tm_ask_output"));
}

static bool is_write(tm_write key) {
  return is_asked(is_place(key.place, &asked.writes), TM("a metadata key"), TM("tm_ask_write"));
}

uint32_t tm_count(const tm_batch *batch) { return batch->count; }

tm_message tm_message_at(const tm_batch *batch, uint32_t index) {
  tm_message message = {batch, index, TM("")};
  if (is_message(message) && batch->has_payloads) message.payload = piece(batch->data, batch->ends, index);
  return message;
}

bool tm_is_text(tm_message message) {
  return !is_message(message) || !message.batch->binary || !message.batch->binary[message.index];
}
uint64_t tm_received_us(tm_message message) {
  return is_message(message) && message.batch->times ? message.batch->times[message.index] : 0;
}

const double *tm_numbers(const tm_batch *batch, tm_number field) {
  if (is_field(field.place, true)) return batch->fields[field.place - 1].field.numbers.at;
  double *none = arena_take(batch->count * sizeof *none, sizeof *none);
  for (uint32_t i = 0; i < batch->count; i++) none[i] = __builtin_nan("");
  return none;
}

double tm_get_number(tm_message message, tm_number field) {
  if (!is_message(message) || !is_field(field.place, true)) return __builtin_nan("");
  return tm_numbers(message.batch, field)[message.index];
}

tm_slice tm_get_text(tm_message message, tm_text field) {
  if (!is_message(message) || !is_field(field.place, false)) return (tm_slice){0};
  const wire_packed *texts = &message.batch->fields[field.place - 1].field.packed;
  if (texts->marks.is_some && ((uint8_t *)texts->marks.list.at)[message.index]) return (tm_slice){0};
  tm_slice text = piece(texts->data.at, texts->ends.at, message.index);
  return (tm_slice){text.at ? text.at : NOTHING, text.len};
}

tm_slice tm_metadata(tm_message message, tm_read key) {
  bool is = is_message(message) && is_asked(is_place(key.place, &asked.reads), TM("a metadata key"), TM("tm_ask_read"));
  if (!is) return TM("");
  const wire_column *column = &message.batch->metadata[key.place - 1];
  if (column->tag == COLUMN_SAME) return sliced(column->same);
  return piece(column->packed.data.at, column->packed.ends.at, message.index);
}

// ---- What becomes of them.

// The values that one place, or one metadata key, was given: each with the number of its message or emission.
typedef struct {
  buffer indices, ends, data; // of numbers, `data` has doubles
} values;

struct tm_emission {
  tm_out *out;
};

struct tm_out {
  uint32_t next;             // the first message that nothing was said of yet
  buffer forwarded, outputs; // a message, and its output
  bool has_outputs;
  buffer edits, metadata;              // a `values` for each place, and each key, of forwarded messages
  buffer data, ends, origins, binary;  // of emissions
  buffer emission_outputs, emission_metadata;
  bool has_binary, has_emission_outputs;
  buffer rejections;
  bool is_stopped;
  uint32_t retried, after_ms;
  tm_slice why;
  buffer reasons;
  tm_emission emission;
  // Only filled to cross.
  buffer wire_edits, wire_metadata, wire_emission_metadata, absent, settings;
};

static tm_out out_of_call = {.emission = {&out_of_call}};

static void keep(values *of, uint32_t index, bool is_json) {
  while (of->indices.len > 0 && AT(of->indices, uint32_t, of->indices.len - 1) >= index) {
    of->indices.len--;
    of->ends.len = is_json ? of->indices.len : 0;
    of->data.len = is_json ? (of->ends.len > 0 ? AT(of->ends, uint32_t, of->ends.len - 1) : 0) : of->indices.len;
  }
}

static void give(values *of, uint32_t index, tm_slice value) {
  keep(of, index, true);
  put_text(&of->data, value);
  PUSH(&of->indices, uint32_t, index);
  PUSH(&of->ends, uint32_t, (uint32_t)of->data.len);
}

static void sized(buffer *columns, size_t count) {
  while (columns->len < count) PUSH(columns, values, (values){0});
  columns->len = count;
  for (size_t i = 0; i < columns->len; i++) {
    values *of = &AT(*columns, values, i);
    of->indices.len = of->ends.len = of->data.len = 0;
  }
}

static tm_out *fresh_out(void) {
  tm_out *out = &out_of_call;
  out->next = 0;
  buffer *emptied[] = {&out->forwarded, &out->outputs, &out->data,       &out->ends,
                       &out->origins,   &out->binary,  &out->emission_outputs, &out->rejections, &out->reasons};
  for (size_t i = 0; i < sizeof emptied / sizeof *emptied; i++) emptied[i]->len = 0;
  out->has_outputs = out->has_binary = out->has_emission_outputs = out->is_stopped = false;
  sized(&out->edits, asked.edits.len);
  sized(&out->metadata, asked.writes.len);
  sized(&out->emission_metadata, asked.writes.len);
  return out;
}

// Whether something may be said of a message: of later ones nothing was yet, and none is to be offered again.
static bool decides(tm_out *out, tm_message message) {
  if (!is_message(message)) return false;
  if (out->is_stopped) tm_fail(TM("nothing is decided on behind a message that is to be offered again"));
  if (message.index + 1 < out->next) tm_fail(TM("messages are decided on in their order"));
  if (failure.is_there) return false;
  out->next = message.index + 1;
  return true;
}

static bool is_last(const buffer *list, uint32_t message) {
  return list->len > 0 && AT(*list, uint32_t, list->len - 1) == message;
}

static void take_back(tm_out *out, uint32_t message) {
  if (is_last(&out->forwarded, message)) out->outputs.len = --out->forwarded.len;
  size_t count = out->origins.len;
  while (count > 0 && AT(out->origins, uint32_t, count - 1) == message) count--;
  if (count < out->origins.len) {
    out->data.len = AT(out->ends, uint32_t, count);
    out->origins.len = out->ends.len = out->binary.len = out->emission_outputs.len = count;
  }
  for (size_t i = 0; i < out->edits.len; i++)
    keep(&AT(out->edits, values, i), message, AT(asked.edit_is_json, bool, i));
  for (size_t i = 0; i < out->metadata.len; i++) {
    keep(&AT(out->metadata, values, i), message, true);
    keep(&AT(out->emission_metadata, values, i), (uint32_t)count, true);
  }
  if (out->rejections.len > 0 && AT(out->rejections, wire_rejection, out->rejections.len - 1).message == message)
    out->rejections.len--;
}

void tm_forward(tm_out *out, tm_message message) { tm_forward_to(out, message, (tm_output){0}); }

void tm_forward_to(tm_out *out, tm_message message, tm_output output) {
  if (!decides(out, message) || !is_output(output)) return;
  if (is_last(&out->forwarded, message.index)) out->outputs.len = --out->forwarded.len;
  PUSH(&out->forwarded, uint32_t, message.index);
  PUSH(&out->outputs, uint16_t, output.number);
  out->has_outputs |= output.number != 0;
}

void tm_forward_all(tm_out *out, const tm_batch *batch) {
  for (uint32_t index = out->next; index < batch->count; index++) tm_forward(out, (tm_message){batch, index, TM("")});
}

void tm_set_number(tm_out *out, tm_message message, tm_edit_number edit, double number) {
  if (!decides(out, message) || !is_edit(edit.place, false)) return;
  values *of = &AT(out->edits, values, edit.place - 1);
  keep(of, message.index, false);
  PUSH(&of->indices, uint32_t, message.index);
  PUSH(&of->data, double, number);
}

void tm_set_json(tm_out *out, tm_message message, tm_edit_json edit, tm_slice json) {
  if (decides(out, message) && is_edit(edit.place, true)) give(&AT(out->edits, values, edit.place - 1), message.index, json);
}

void tm_remove(tm_out *out, tm_message message, tm_edit_json edit) { tm_set_json(out, message, edit, TM("")); }

void tm_set_metadata(tm_out *out, tm_message message, tm_write key, tm_slice value) {
  if (decides(out, message) && is_write(key)) give(&AT(out->metadata, values, key.place - 1), message.index, value);
}

// A time as it crosses; one below 0 is 0.
static uint32_t milliseconds(int64_t ms) { return ms < 0 ? 0 : ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms; }

// A reason is kept until it has crossed: it may be in a buffer of the plugin. By its place, for the buffer grows.
static tm_slice reason_kept(tm_out *out, tm_slice reason) {
  size_t start = out->reasons.len;
  put_text(&out->reasons, reason);
  return (tm_slice){(const uint8_t *)start, out->reasons.len - start};
}

void tm_reject(tm_out *out, tm_message message, tm_slice reason) {
  if (!decides(out, message)) return;
  take_back(out, message.index);
  PUSH(&out->rejections, wire_rejection, ((wire_rejection){message.index, listed(reason_kept(out, reason))}));
}

void tm_retry(tm_out *out, tm_message message, tm_slice reason, int64_t after_ms) {
  if (!decides(out, message)) return;
  take_back(out, message.index);
  out->is_stopped = true;
  out->retried = message.index;
  out->after_ms = milliseconds(after_ms);
  out->why = reason_kept(out, reason);
}

bool tm_is_stopped(const tm_out *out) { return out->is_stopped; }

tm_emission *tm_emit_new(tm_out *out) {
  PUSH(&out->ends, uint32_t, (uint32_t)out->data.len); // where it begins, until it is complete
  PUSH(&out->binary, uint8_t, 0);
  PUSH(&out->emission_outputs, uint16_t, 0);
  return &out->emission;
}

tm_emission *tm_emit(tm_out *out, tm_message origin) {
  if (!decides(out, origin)) return &out->emission;
  tm_emission *emission = tm_emit_new(out);
  PUSH(&out->origins, uint32_t, origin.index);
  if (!tm_is_text(origin)) tm_emit_binary(emission, true);
  return emission;
}

// Whether something is being emitted.
static bool is_emission(const tm_emission *emission) {
  bool is = emission == &out_of_call.emission && out_of_call.ends.len > 0;
  if (!is) tm_fail(TM("something is written to an emission that was not begun: tm_emit and tm_emit_new give it"));
  return is;
}

void tm_emit_to(tm_emission *emission, tm_output output) {
  if (!is_emission(emission) || !is_output(output)) return;
  tm_out *out = emission->out;
  AT(out->emission_outputs, uint16_t, out->ends.len - 1) = output.number;
  out->has_emission_outputs |= output.number != 0;
}

void tm_emit_binary(tm_emission *emission, bool binary) {
  if (!is_emission(emission)) return;
  tm_out *out = emission->out;
  AT(out->binary, uint8_t, out->ends.len - 1) = binary;
  out->has_binary |= binary;
}

void tm_emit_metadata(tm_emission *emission, tm_write key, tm_slice value) {
  if (!is_emission(emission) || !is_write(key)) return;
  tm_out *out = emission->out;
  give(&AT(out->emission_metadata, values, key.place - 1), (uint32_t)out->ends.len - 1, value);
}

void tm_append(tm_emission *emission, tm_slice piece) {
  if (is_emission(emission)) put(&emission->out->data, piece);
}
uint8_t *tm_append_room(tm_emission *emission, size_t len) {
  return is_emission(emission) ? extend(&emission->out->data, len, 1) : arena_take(len, 1);
}

void tm_append_int(tm_emission *emission, int64_t number) {
  uint8_t digits[20], *at = digits + sizeof digits;
  uint64_t rest = number < 0 ? -(uint64_t)number : (uint64_t)number;
  do *--at = '0' + rest % 10; while (rest /= 10);
  if (number < 0) *--at = '-';
  tm_append(emission, (tm_slice){at, (size_t)(digits + sizeof digits - at)});
}

void tm_append_number(tm_emission *emission, double number) {
  if (number - number != 0) {
    tm_append(emission, TM("null"));
    return;
  }
  char text[32];
  for (int precision = 15; precision <= 17; precision++) {
    snprintf(text, sizeof text, "%.*g", precision, number);
    if (strtod(text, NULL) == number) break;
  }
  tm_append(emission, tm_str(text));
}

void tm_append_string(tm_emission *emission, tm_slice text) {
  static const char HEX[] = "0123456789abcdef";
  tm_append(emission, TM("\""));
  for (size_t i = 0, start = 0; i <= text.len; i++) {
    uint8_t byte = i < text.len ? text.at[i] : 0;
    if (i < text.len && byte >= 0x20 && byte != '"' && byte != '\\') continue;
    tm_append(emission, (tm_slice){text.at + start, i - start});
    start = i + 1;
    if (i == text.len) break;
    if (byte >= 0x20) {
      tm_append(emission, (tm_slice){(uint8_t[]){'\\', byte}, 2});
    } else {
      tm_append(emission, (tm_slice){(uint8_t[]){'\\', 'u', '0', '0', (uint8_t)HEX[byte >> 4], (uint8_t)HEX[byte & 15]}, 6});
    }
  }
  tm_append(emission, TM("\""));
}

// ---- What became of them, as it crosses.

// Whether values are those of all these messages, and of no other.
static bool cover(const values *of, const uint32_t *messages, size_t count) {
  if (of->indices.len != count) return false;
  return !messages || memcmp(of->indices.at, messages, count * sizeof *messages) == 0;
}

// The metadata columns of messages, or of so many emissions.
static wire_list lower_metadata(tm_out *out, buffer *columns, buffer *to, const uint32_t *messages, size_t count) {
  bool is_used = false;
  for (size_t i = 0; i < columns->len; i++) is_used |= AT(*columns, values, i).indices.len > 0;
  to->len = 0;
  if (!is_used || count == 0) return (wire_list){0};
  for (size_t i = 0; i < columns->len; i++) {
    values *of = &AT(*columns, values, i);
    if (cover(of, messages, count)) {
      PUSH(to, wire_writing, ((wire_writing){WRITING_PACKED, whole(&of->data), whole(&of->ends)}));
      continue;
    }
    size_t first = out->settings.len;
    for (size_t place = 0, given = 0; place < count && given < of->indices.len; place++) {
      uint32_t message = messages ? messages[place] : (uint32_t)place;
      while (given < of->indices.len && AT(of->indices, uint32_t, given) < message) given++;
      if (given == of->indices.len || AT(of->indices, uint32_t, given) != message) continue;
      tm_slice value = piece(of->data.at ? of->data.at : NOTHING, of->ends.at, (uint32_t)given);
      PUSH(&out->settings, wire_setting, ((wire_setting){(uint32_t)place, listed(value)}));
    }
    // The list is found again below, for it may move while it grows.
    size_t found = out->settings.len - first;
    uint8_t tag = found > 0 ? WRITING_SPARSE : WRITING_INHERIT;
    PUSH(to, wire_writing, ((wire_writing){tag, {(void *)first, found}, {0}}));
  }
  return whole(to);
}

static void place_settings(tm_out *out, wire_list columns) {
  for (size_t i = 0; i < columns.len; i++) {
    wire_writing *writing = (wire_writing *)columns.at + i;
    if (writing->tag == WRITING_SPARSE) writing->data.at = (wire_setting *)out->settings.at + (size_t)writing->data.at;
  }
}

// One edit of the forwarded messages, which it may not cover: then its values are spread over them, in place.
static wire_values lower_edit(tm_out *out, values *of, bool is_json) {
  const uint32_t *messages = out->forwarded.at;
  size_t count = out->forwarded.len;
  bool covers = cover(of, messages, count);
  if (!is_json) {
    wire_values lowered = {.tag = VALUES_NUMBERS, .numbers = whole(&of->data)};
    if (covers) return lowered;
    double *spread = arena_take(count * sizeof *spread, sizeof *spread);
    for (size_t place = 0, given = 0; place < count; place++) {
      while (given < of->indices.len && AT(of->indices, uint32_t, given) < messages[place]) given++;
      bool is_there = given < of->indices.len && AT(of->indices, uint32_t, given) == messages[place];
      spread[place] = is_there ? AT(of->data, double, given) : __builtin_nan("");
    }
    return (wire_values){.tag = VALUES_NUMBERS, .numbers = {spread, count}};
  }
  wire_packed texts = {whole(&of->data), whole(&of->ends), {0}};
  if (!covers) {
    uint8_t *data = arena_take(of->data.len, 1), *absent = arena_take(count, 1);
    uint32_t *ends = arena_take(count * sizeof *ends, sizeof *ends), end = 0;
    for (size_t place = 0, given = 0; place < count; place++) {
      while (given < of->indices.len && AT(of->indices, uint32_t, given) < messages[place]) given++;
      bool is_there = given < of->indices.len && AT(of->indices, uint32_t, given) == messages[place];
      absent[place] = !is_there;
      if (is_there && of->data.len > 0) {
        tm_slice value = piece(of->data.at, of->ends.at, (uint32_t)given);
        memcpy(data + end, value.at, value.len);
        end += (uint32_t)value.len;
      }
      ends[place] = end;
    }
    texts = (wire_packed){{data, end}, {ends, count}, {1, {absent, count}}};
  }
  return (wire_values){.tag = VALUES_PACKED, .packed = texts};
}

static wire_list lower_edits(tm_out *out) {
  bool is_used = false;
  for (size_t i = 0; i < out->edits.len; i++) is_used |= AT(out->edits, values, i).indices.len > 0;
  out->wire_edits.len = 0;
  if (!is_used || out->forwarded.len == 0) return (wire_list){0};
  for (size_t i = 0; i < out->edits.len; i++) {
    wire_values lowered = lower_edit(out, &AT(out->edits, values, i), AT(asked.edit_is_json, bool, i));
    PUSH(&out->wire_edits, wire_values, lowered);
  }
  return whole(&out->wire_edits);
}

static void lower_emissions(tm_out *out, wire_emissions *to) {
  // Where each began becomes where each ends.
  size_t count = out->ends.len;
  if (count > 0) {
    uint32_t *ends = out->ends.at;
    memmove(ends, ends + 1, (count - 1) * sizeof *ends);
    ends[count - 1] = (uint32_t)out->data.len;
  }
  *to = (wire_emissions){
      .packed = {whole(&out->data), whole(&out->ends), {out->has_binary, whole(&out->binary)}},
      .origins = whole(&out->origins),
      .outputs = out->has_emission_outputs ? whole(&out->emission_outputs) : (wire_list){0},
      .metadata = lower_metadata(out, &out->emission_metadata, &out->wire_emission_metadata, NULL, count),
  };
}

static void lower(tm_out *out, uint32_t count, wire_outcome *to) {
  out->settings.len = 0;
  size_t forwarded = out->forwarded.len;
  *to = (wire_outcome){.forward = forwarded == 0 ? FORWARD_NOTHING : forwarded == count ? FORWARD_ALL : FORWARD_THESE};
  if (to->forward == FORWARD_THESE) to->forwarded = whole(&out->forwarded);
  if (out->has_outputs) to->forward_outputs = whole(&out->outputs);
  to->forward_metadata = lower_metadata(out, &out->metadata, &out->wire_metadata, out->forwarded.at, forwarded);
  to->edits = lower_edits(out);
  to->has_emissions = out->ends.len > 0;
  if (to->has_emissions) lower_emissions(out, &to->emissions);
  place_settings(out, to->forward_metadata);
  place_settings(out, to->emissions.metadata);
  for (size_t i = 0; i < out->rejections.len; i++) {
    wire_list *reason = &AT(out->rejections, wire_rejection, i).reason;
    reason->at = (uint8_t *)out->reasons.at + (size_t)reason->at;
  }
  to->rejections = whole(&out->rejections);
  to->has_retry = out->is_stopped;
  to->retry.message = out->retried;
  to->retry.reason = (wire_list){(uint8_t *)out->reasons.at + (size_t)out->why.at, out->why.len};
  to->retry.after_ms = out->after_ms;
}

// ---- The calls of a transform. A result lies where the next call of its kind puts its own.

#define RESULT(name, type)                                                                             \
  static struct {                                                                                      \
    uint8_t is_error;                                                                                  \
    union {                                                                                            \
      type value;                                                                                      \
      wire_list why;                                                                                   \
    };                                                                                                 \
  } name

RESULT(described, wire_description);
RESULT(decided, wire_outcome);
RESULT(saved, wire_option);
RESULT(done, wire_list);
typedef struct {
  uint8_t is_some;
  wire_emissions emissions;
} wire_option_emissions;
RESULT(emitted, wire_option_emissions);

// Makes a result an error if the call failed.
#define END_CALL(result)                                                                               \
  do {                                                                                                 \
    is_over = true;                                                                                    \
    (result).is_error = failure.is_there;                                                              \
    if (failure.is_there) (result).why = whole(&failure.text);                                         \
  } while (0)

static void begin_setup(tm_slice config, const tm_pair *facts, size_t count) {
  begin_call();
  asked = (tm_setup){.config = kept(config), .facts = facts, .fact_count = count, .is_open = true};
}

static void end_setup(void) {
  check_keys(&asked);
  asked.is_open = false;
}

void *tm_transform_init(const tm_transform *plugin, tm_slice config, const tm_pair *facts, size_t count) {
  begin_setup(config, facts, count);
  if (!plugin->process && !plugin->process_batch)
    tm_fail(TM("the plugin has neither .process nor .process_batch: its tm_transform has to name one of the functions"));
  if (plugin->init)
    plugin->init(&asked);
  else
    tm_fail(TM("the plugin has no .init: its tm_transform has to name the function, which may ask for nothing"));
  end_setup();
  static tm_pair guards;
  guards = (tm_pair){TM("guards"), TM("true")};
  described.value = (wire_description){
      .outputs = whole(&asked.outputs),
      .reads = whole(&asked.reads),
      .writes = whole(&asked.writes),
      .fields = whole(&asked.fields),
      .edits = whole(&asked.edits),
      .only_json = asked.only_json,
      .payloads = !asked.without_payloads,
      .times = asked.times,
      .tick_ms = asked.tick_ms,
      .options = {&guards, asked.guards ? 1 : 0},
  };
  END_CALL(described);
  return &described;
}

void *tm_transform_process(const tm_transform *plugin, TM_BATCH_PARAMETERS) {
  (void)form, (void)data_len, (void)ends_len, (void)binary_len, (void)times_len, (void)columns_len;
  begin_call();
  tm_batch batch = {
      .count = count,
      .has_payloads = has_payloads,
      .data = data,
      .ends = ends,
      .binary = has_payloads && has_binary ? binary : NULL,
      .times = has_times ? times : NULL,
      .metadata = has_columns ? columns : NULL,
      .fields = has_columns ? (wire_column *)columns + asked.reads.len : NULL,
  };
  tm_out *out = fresh_out();
  batch_of_call = &batch;
  if (plugin->process_batch) {
    plugin->process_batch(&batch, out);
  } else {
    for (uint32_t index = 0, start = 0; index < count && !out->is_stopped && !failure.is_there; index++) {
      tm_message message = {&batch, index, TM("")};
      if (has_payloads) {
        message.payload = (tm_slice){data + start, ends[index] - start};
        start = ends[index];
      }
      plugin->process(message, out);
    }
  }
  batch_of_call = NULL;
  if (!failure.is_there) lower(out, count, &decided.value);
  END_CALL(decided);
  return &decided;
}

static void *end_emitting(void) {
  out_of_call.settings.len = 0;
  emitted.value.is_some = out_of_call.ends.len > 0;
  if (emitted.value.is_some) {
    lower_emissions(&out_of_call, &emitted.value.emissions);
    place_settings(&out_of_call, emitted.value.emissions.metadata);
  }
  END_CALL(emitted);
  return &emitted;
}

void *tm_transform_tick(const tm_transform *plugin, uint64_t now_us) {
  begin_call();
  tm_out *out = fresh_out();
  if (plugin->tick) plugin->tick(now_us, out);
  return end_emitting();
}

void *tm_transform_finish(const tm_transform *plugin) {
  begin_call();
  tm_out *out = fresh_out();
  if (plugin->finish) plugin->finish(out);
  return end_emitting();
}

static buffer state;
static bool has_state;

void tm_save(tm_slice bytes) {
  state.len = 0;
  has_state = true;
  put(&state, bytes);
}

void *tm_transform_snapshot(const tm_transform *plugin) {
  begin_call();
  has_state = false;
  if (plugin->snapshot) plugin->snapshot();
  saved.value = (wire_option){has_state, whole(&state)};
  END_CALL(saved);
  return &saved;
}

void *tm_transform_restore(const tm_transform *plugin, const tm_slice *snapshots, size_t count, tm_part part) {
  begin_call();
  if (plugin->restore) plugin->restore(snapshots, count, part);
  END_CALL(done);
  return &done;
}

// ---- The calls of a connector.

struct tm_dial {
  wire_dial wire;
  buffer headers, first_messages;
  bool is_refused;
  tm_slice reason;
  int64_t retry_after_ms;
};

typedef struct {
  uint32_t tick_ms;
  wire_list options;
} wire_connector_description;
RESULT(connector_described, wire_connector_description);
static struct {
  uint8_t is_error;
  union {
    wire_dial dial;
    struct {
      wire_list reason;
      uint8_t has_retry;
      uint32_t retry_after_ms;
    } refusal;
  };
} answered;

void *tm_connector_init(const tm_connector *plugin, tm_slice config, const tm_pair *facts, size_t count) {
  begin_setup(config, facts, count);
  if (!plugin->before_connect)
    tm_fail(TM("the plugin has no .before_connect: its tm_connector has to name the function"));
  if (plugin->init)
    plugin->init(&asked);
  else
    tm_fail(TM("the plugin has no .init: its tm_connector has to name the function, which may ask for nothing"));
  end_setup();
  connector_described.value = (wire_connector_description){.tick_ms = asked.tick_ms};
  END_CALL(connector_described);
  return &connector_described;
}

static bool is_same_name(tm_slice a, tm_slice b) {
  if (a.len != b.len) return false;
  for (size_t i = 0; i < a.len; i++) {
    uint8_t x = a.at[i], y = b.at[i];
    if (x >= 'A' && x <= 'Z') x |= 32;
    if (y >= 'A' && y <= 'Z') y |= 32;
    if (x != y) return false;
  }
  return true;
}

// Text as it may cross, until the call ends.
static tm_slice in_arena(tm_slice text) {
  static buffer clean;
  clean.len = 0;
  put_text(&clean, text);
  uint8_t *copy = arena_take(clean.len, 1);
  if (clean.len > 0) memcpy(copy, clean.at, clean.len);
  return (tm_slice){copy, clean.len};
}

tm_slice tm_dial_url(const tm_dial *dial) { return sliced(dial->wire.url); }

tm_slice tm_dial_header(const tm_dial *dial, tm_slice name) {
  for (size_t i = 0; i < dial->headers.len; i++) {
    tm_pair header = AT(dial->headers, tm_pair, i);
    if (is_same_name(header.name, name)) return header.value;
  }
  return (tm_slice){0};
}

void tm_dial_set_url(tm_dial *dial, tm_slice url) { dial->wire.url = listed(in_arena(url)); }

void tm_dial_set_header(tm_dial *dial, tm_slice name, tm_slice value) {
  size_t left = 0;
  for (size_t i = 0; i < dial->headers.len; i++) {
    tm_pair header = AT(dial->headers, tm_pair, i);
    if (!is_same_name(header.name, name)) AT(dial->headers, tm_pair, left++) = header;
  }
  dial->headers.len = left;
  PUSH(&dial->headers, tm_pair, ((tm_pair){in_arena(name), in_arena(value)}));
}

void tm_dial_send_first(tm_dial *dial, tm_slice text) {
  PUSH(&dial->first_messages, wire_payload, ((wire_payload){false, listed(in_arena(text))}));
}

void tm_dial_refuse(tm_dial *dial, tm_slice reason, int64_t retry_after_ms) {
  dial->is_refused = true;
  dial->reason = in_arena(reason);
  dial->retry_after_ms = retry_after_ms;
}

static void copy_list(buffer *to, wire_list from, size_t size) {
  to->len = 0;
  if (from.len > 0) memcpy(extend(to, from.len, size), from.at, from.len * size);
}

void *tm_connector_before_connect(const tm_connector *plugin, void *given) {
  begin_call();
  static tm_dial dial;
  const wire_attempt *wire = given;
  dial.wire = wire->dial;
  dial.is_refused = false;
  copy_list(&dial.headers, wire->dial.headers, sizeof(tm_pair));
  copy_list(&dial.first_messages, wire->dial.first_messages, sizeof(wire_payload));
  tm_attempt attempt = {.number = wire->number, .has_last = wire->last.is_some, .status = -1, .close_code = -1};
  if (wire->last.is_some) {
    attempt.outcome = sliced(wire->last.ending.outcome);
    attempt.detail = sliced(wire->last.ending.detail);
    if (wire->last.ending.status.is_some) attempt.status = wire->last.ending.status.value;
    if (wire->last.ending.close_code.is_some) attempt.close_code = wire->last.ending.close_code.value;
    attempt.lasted_ms = wire->last.ending.lasted_ms;
  }
  plugin->before_connect(&dial, &attempt);
  if (failure.is_there && !dial.is_refused) tm_dial_refuse(&dial, sliced(whole(&failure.text)), -1);
  is_over = true;
  answered.is_error = dial.is_refused;
  if (dial.is_refused) {
    answered.refusal.reason = listed(dial.reason);
    answered.refusal.has_retry = dial.retry_after_ms >= 0;
    answered.refusal.retry_after_ms = milliseconds(dial.retry_after_ms);
  } else {
    answered.dial = dial.wire;
    answered.dial.headers = whole(&dial.headers);
    answered.dial.first_messages = whole(&dial.first_messages);
  }
  return &answered;
}

void *tm_connector_tick(const tm_connector *plugin, uint64_t now_us) {
  begin_call();
  if (plugin->tick) plugin->tick(now_us);
  END_CALL(done);
  return &done;
}

// ---- The host. Natively a test says what it answers.

#ifdef __wasm__
#define IMPORT(interface, name)                                                                        \
  __attribute__((__import_module__("tidemill:plugin/" interface "@0.1.0"), __import_name__(name))) extern
#else
#define IMPORT(interface, name) extern
#endif

IMPORT("log", "write") void tm_import_log(uint32_t, const void *, size_t);
IMPORT("state", "get") void tm_import_get(const void *, size_t, void *);
IMPORT("state", "get-many") void tm_import_get_many(const void *, size_t, void *);
IMPORT("state", "set") void tm_import_set(const void *, size_t, const void *, size_t, void *);
IMPORT("state", "set-many") void tm_import_set_many(const void *, size_t, void *);
IMPORT("state", "delete") void tm_import_delete(const void *, size_t);
IMPORT("state", "keys") void tm_import_keys(const void *, size_t, uint32_t, const void *, size_t, uint32_t, void *);
IMPORT("metrics", "add") void tm_import_add(const void *, size_t, double);
IMPORT("metrics", "set") void tm_import_gauge(const void *, size_t, double);
IMPORT("metrics", "observe") void tm_import_observe(const void *, size_t, double);
IMPORT("clock", "now-us") uint64_t tm_import_now_us(void);
IMPORT("random", "next") double tm_import_random(void);
IMPORT("http", "send")
void tm_import_send(const void *, size_t, const void *, size_t, const void *, size_t, const void *, size_t, uint32_t,
                    void *);
IMPORT("http", "send-all") void tm_import_send_all(const void *, size_t, void *);

void tm_log(tm_level level, tm_slice line) {
  static buffer clean;
  clean.len = 0;
  put_text(&clean, line);
  tm_import_log(level, clean.at, clean.len);
}
void tm_count_up(const char *counter, double by) { tm_import_add(counter, strlen(counter), by); }
void tm_gauge(const char *gauge, double value) { tm_import_gauge(gauge, strlen(gauge), value); }
void tm_observe(const char *histogram, double value) { tm_import_observe(histogram, strlen(histogram), value); }
uint64_t tm_now_us(void) { return tm_import_now_us(); }
double tm_random(void) { return tm_import_random(); }

tm_slice tm_state_get(tm_slice key) {
  wire_option value = {0};
  tm_import_get(key.at, key.len, &value);
  return optional(value);
}

void tm_state_get_many(const tm_slice *keys, size_t count, tm_slice *found) {
  if (count == 0) return;
  wire_list list = {0};
  tm_import_get_many(keys, count, &list);
  for (size_t i = 0; i < count; i++) found[i] = optional(((wire_option *)list.at)[i]);
}

typedef struct {
  uint8_t is_error;
  wire_list why;
} wire_refusal;

tm_slice tm_state_set(tm_slice key, tm_slice value) {
  wire_refusal refusal = {0};
  tm_import_set(key.at, key.len, value.at, value.len, &refusal);
  return refusal.is_error ? sliced(refusal.why) : (tm_slice){0};
}

tm_slice tm_state_set_many(const tm_change *changes, size_t count) {
  if (count == 0) return (tm_slice){0};
  wire_change *crossing = arena_take(count * sizeof *crossing, _Alignof(wire_change));
  for (size_t i = 0; i < count; i++)
    crossing[i] = (wire_change){listed(changes[i].key), {changes[i].value.at != NULL, listed(changes[i].value)}, changes[i].ttl_ms};
  wire_refusal refusal = {0};
  tm_import_set_many(crossing, count, &refusal);
  return refusal.is_error ? sliced(refusal.why) : (tm_slice){0};
}

void tm_state_delete(tm_slice key) { tm_import_delete(key.at, key.len); }

size_t tm_state_keys(tm_slice prefix, tm_slice after, uint32_t limit, tm_slice *keys) {
  wire_list list = {0};
  tm_import_keys(prefix.at, prefix.len, after.at != NULL, after.at, after.len, limit, &list);
  for (size_t i = 0; i < list.len; i++) keys[i] = sliced(((wire_list *)list.at)[i]);
  return list.len;
}

static tm_response response_of(const wire_answer *answer) {
  static const char *const WORDS[] = {"the request is invalid: ", "the request is denied: ", "the answer took too long",
                                      "the answer has more than ", "the request failed: "};
  enum { TIMEOUT = 2, TOO_LARGE = 3 };
  if (!answer->is_error)
    return (tm_response){{0}, answer->answer.status, answer->answer.headers.at, answer->answer.headers.len,
                         sliced(answer->answer.body)};
  uint8_t tag = answer->error.tag;
  tm_slice words = tm_str(WORDS[tag]);
  uint8_t digits[20 + sizeof " bytes"], *end = digits + 20;
  memcpy(end, " bytes", sizeof " bytes");
  tm_slice why = TM("");
  if (tag == TOO_LARGE) {
    uint8_t *at = end;
    uint64_t rest = answer->error.most;
    do *--at = '0' + rest % 10; while (rest /= 10);
    why = (tm_slice){at, (size_t)(end - at) + sizeof " bytes" - 1};
  } else if (tag != TIMEOUT) {
    why = sliced(answer->error.why);
  }
  uint8_t *text = arena_take(words.len + why.len, 1);
  memcpy(text, words.at, words.len);
  if (why.len > 0) memcpy(text + words.len, why.at, why.len);
  return (tm_response){.error = {text, words.len + why.len}};
}

tm_response tm_http_send(const tm_request *request) {
  wire_answer answer = {0};
  tm_import_send(request->method.at, request->method.len, request->url.at, request->url.len, request->headers,
                 request->header_count, request->body.at, request->body.len, request->timeout_ms, &answer);
  return response_of(&answer);
}

void tm_http_send_all(const tm_request *requests, size_t count, tm_response *responses) {
  if (count == 0) return;
  wire_request *crossing = arena_take(count * sizeof *crossing, _Alignof(wire_request));
  for (size_t i = 0; i < count; i++) {
    const tm_request *from = &requests[i];
    crossing[i] = (wire_request){listed(from->method), listed(from->url), {(void *)from->headers, from->header_count},
                                 listed(from->body), from->timeout_ms};
  }
  wire_list list = {0};
  tm_import_send_all(crossing, count, &list);
  for (size_t i = 0; i < count; i++) responses[i] = response_of((wire_answer *)list.at + i);
}
