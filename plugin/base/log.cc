#include "plugin/base/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <exception>
#include <memory>

#include "plugin/base/text.h"

namespace siphon::log {
namespace {

constexpr const char* kPattern = "%Y-%m-%dT%H:%M:%S.%eZ %-7l %v";

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarn:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

}  // namespace

void setup(const std::string& level, const std::string& file) {
  std::string trouble;
  std::shared_ptr<spdlog::sinks::sink> sink;
  if (!file.empty()) {
    try {
      sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(file);
    } catch (const std::exception& e) {
      trouble = std::string("logging to stderr: ") + e.what();
    }
  }
  if (!sink) sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();

  auto wanted = spdlog::level::info;
  if (level == "debug") {
    wanted = spdlog::level::debug;
  } else if (level == "warn") {
    wanted = spdlog::level::warn;
  } else if (level == "error") {
    wanted = spdlog::level::err;
  } else if (level != "info") {
    if (!trouble.empty()) trouble += "; ";
    trouble += "log level '" + level + "' is unknown, using info";
  }

  auto logger = std::make_shared<spdlog::logger>("siphon", std::move(sink));
  logger->set_level(wanted);
  logger->set_pattern(kPattern, spdlog::pattern_time_type::utc);
  logger->flush_on(spdlog::level::debug);  // a killed daemon loses no line
  spdlog::set_default_logger(std::move(logger));
  if (!trouble.empty()) write(Level::kWarn, trouble);
}

bool enabled(Level level) noexcept {
  spdlog::logger* logger = spdlog::default_logger_raw();
  return logger != nullptr && logger->should_log(to_spdlog(level));
}

void write(Level level, std::string_view message) noexcept {
  spdlog::logger* logger = spdlog::default_logger_raw();
  if (logger == nullptr) return;
  if (!logger->should_log(to_spdlog(level))) return;
  try {
    const std::string line = escaped(message);
    // The string_view overload takes the message as it is; spdlog reports its own failures.
    logger->log(to_spdlog(level), spdlog::string_view_t(line.data(), line.size()));
  } catch (const std::exception&) {
    // No memory for a log line.
  }
}

void vwrite(Level level, fmt::string_view format, fmt::format_args args) noexcept {
  try {
    write(level, fmt::vformat(format, args));
  } catch (const std::exception& e) {
    write(level, "a log line could not be formatted");
  }
}

}  // namespace siphon::log
