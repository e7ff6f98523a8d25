// What decides what becomes of a message.

#ifndef MODES_H
#define MODES_H

#include "tidemill.h"

// Cuts `rest` at the first colon: answers what is before, and leaves what is after.
tm_slice cut(tm_slice *rest);

typedef struct {
  // The word of ../README.md; NULL where the text of a message decides.
  const char *word;
  void (*init)(tm_setup *setup);
  void (*decide)(const tm_batch *batch, tm_out *out);
} mode;

extern const mode MODES[];
extern const size_t MODE_COUNT;

// The text of each message: `count` is how many there were before.
void init_commands(tm_setup *setup, bool observe);
void obey(const tm_batch *batch, tm_out *out, uint64_t *count);

extern tm_output side;
extern tm_write mark;

#endif
