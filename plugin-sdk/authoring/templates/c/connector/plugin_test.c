#include <stdio.h>

#include "bearer.h"

#define CHECK(condition)                                                 \
  if (!(condition)) {                                                    \
    fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
    return 1;                                                            \
  }

int main(void) {
  char value[13];
  CHECK(bearer("t0ken", 5, value, sizeof value) && strcmp(value, "Bearer t0ken") == 0);
  CHECK(!bearer("t0ken1", 6, value, sizeof value));
  return 0;
}
