// What the plugin computes, apart from the host, so that it can be tested natively.

#include <stdbool.h>

// Whether a trade is worth more than `above`, and what; a number that is not there is NaN, and never enough.
static inline bool is_worth(double price, double quantity, double above, double *value) {
  *value = price * quantity;
  return *value > above;
}
