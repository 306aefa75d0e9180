// Stands in for siphond beside a real OSD, so that a test can use the OSD's region alone: it does
// nothing until the OSD's end of the socket pair closes.
#include <unistd.h>

#include "plugin/exchange/exchange.h"

int main() {
  char ignored[16];
  while (::read(siphon::exchange::kSocketFd, ignored, sizeof(ignored)) > 0) {
  }
  return 0;
}
