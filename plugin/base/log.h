// The process's log (spdlog). Secrets never reach it: the Secret type cannot be formatted.
#pragma once

#include <spdlog/spdlog.h>

#include <string>

namespace siphon::log {

// Sets level ("debug", "info", "warn", "error") and sink (a file, or stderr when empty).
// Falls back to stderr when the file cannot be opened, and says so.
void setup(const std::string& level, const std::string& file);

using spdlog::debug;
using spdlog::error;
using spdlog::info;
using spdlog::warn;

}  // namespace siphon::log
