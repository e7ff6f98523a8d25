#include <math.h>
#include <stdio.h>

#include "worth.h"

#define CHECK(condition)                                                 \
  if (!(condition)) {                                                    \
    fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
    return 1;                                                            \
  }

int main(void) {
  double value;
  CHECK(is_worth(2.5, 3, 1, &value) && value == 7.5);
  CHECK(!is_worth(2.5, 0.1, 1, &value));
  CHECK(!is_worth(2.5, NAN, 1, &value));
  return 0;
}
