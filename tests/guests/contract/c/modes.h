// What decides what becomes of a message.

#ifndef MODES_H
#define MODES_H

#include "columns.h"

typedef struct {
  slice_t pointer;
  tidemill_plugin_types_kind_t kind;
} field_t;

typedef struct {
  // What is described of them; what has no bytes ends the list.
  const field_t *fields;
  const slice_t *edits;
  // Decides on a batch, which remains the caller's, and counts its messages.
  bool (*decide)(const batch_t *batch, uint64_t *count, outcome_t *ret, transform_string_t *err);
} mode_t;

// The text of each message; nothing, which is forwarded; JSON fields.
extern const mode_t COMMANDS, BLIND, FIELDS, FILTER, NOTIONAL, SYMBOL;

#endif
