// Clock, reset, and the other end of the serial line: prints what the firmware says until it sends a 4, the end of transmission.
#include <cstdio>

#include "Vtop.h"

int main() {
  const long limit = 10'000'000;
  Vtop top;
  top.serial_source_ready = 1;
  for (long cycle = 0; cycle < limit; cycle++) {
    top.sys_rst = cycle < 10;
    top.sys_clk = 0;
    top.eval();
    const bool says = top.serial_source_valid;
    const int said = top.serial_source_data;
    top.sys_clk = 1;
    top.eval();
    if (says && said == 4) return 0;
    if (says) std::putchar(said);
  }
  std::fprintf(stderr, "the firmware has not ended after %ld cycles\n", limit);
  return 1;
}
