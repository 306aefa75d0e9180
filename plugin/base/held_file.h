// A file that one process holds (flock), with the holder's pid in it: what only one daemon may
// use at a time. The kernel lets go of it when the process ends, however it ends.
#pragma once

#include <string_view>

#include "plugin/base/status.h"

namespace siphon {

// Locks the open file and writes this process's pid into it. It is held until the last descriptor
// of that open file is closed. FAILED_PRECONDITION names `what` and the process that has it.
Status hold_file(int fd, std::string_view what, std::string_view next_step);

}  // namespace siphon
