// What the plugin computes, apart from the host, so that it can be tested natively.

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

// Writes the value of the header for a token, and says whether there was room for it.
static inline bool bearer(const char *token, size_t len, char *value, size_t room) {
  static const char SCHEME[] = "Bearer ";
  if (len + sizeof SCHEME > room) return false;
  memcpy(value, SCHEME, sizeof SCHEME - 1);
  memcpy(value + sizeof SCHEME - 1, token, len);
  value[sizeof SCHEME - 1 + len] = 0;
  return true;
}
