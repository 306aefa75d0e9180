// The process's log. Secrets never reach it: the Secret type cannot be formatted.
//
// spdlog writes it; this header needs only fmt's core, so that logging costs little to compile.
// What peers say is in it, so control characters are escaped: an entry is one line. Thread safe.
// Logging never throws and never fails the caller.
#pragma once

#include <fmt/core.h>

#include <string>
#include <string_view>
#include <utility>

namespace siphon::log {

enum class Level : int { kDebug = 1, kInfo = 2, kWarn = 3, kError = 4 };

// Sets level ("debug", "info", "warn", "error") and sink (a file, or stderr when empty).
// Falls back to stderr when the file cannot be opened, and says so. Lines look like
// "2026-11-22T18:00:00.123Z info    message", in UTC.
void setup(const std::string& level, const std::string& file);

bool enabled(Level level) noexcept;
void write(Level level, std::string_view message) noexcept;
// Formats and writes; a failure to format is logged in place of the message.
void vwrite(Level level, fmt::string_view format, fmt::format_args args) noexcept;

// debug, info, warn, error: a message, or a format string (checked when compiled) with arguments.
inline void debug(std::string_view message) { write(Level::kDebug, message); }
inline void info(std::string_view message) { write(Level::kInfo, message); }
inline void warn(std::string_view message) { write(Level::kWarn, message); }
inline void error(std::string_view message) { write(Level::kError, message); }

template <typename First, typename... Rest>
void debug(fmt::format_string<First, Rest...> format, First&& first, Rest&&... rest) {
  if (enabled(Level::kDebug)) {
    vwrite(Level::kDebug, format, fmt::make_format_args(first, rest...));
  }
}
template <typename First, typename... Rest>
void info(fmt::format_string<First, Rest...> format, First&& first, Rest&&... rest) {
  if (enabled(Level::kInfo)) vwrite(Level::kInfo, format, fmt::make_format_args(first, rest...));
}
template <typename First, typename... Rest>
void warn(fmt::format_string<First, Rest...> format, First&& first, Rest&&... rest) {
  if (enabled(Level::kWarn)) vwrite(Level::kWarn, format, fmt::make_format_args(first, rest...));
}
template <typename First, typename... Rest>
void error(fmt::format_string<First, Rest...> format, First&& first, Rest&&... rest) {
  if (enabled(Level::kError)) {
    vwrite(Level::kError, format, fmt::make_format_args(first, rest...));
  }
}

}  // namespace siphon::log
