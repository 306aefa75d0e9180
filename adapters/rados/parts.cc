#include "adapters/rados/parts.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <exception>

#include "adapters/rados/aio_window.h"
#include "plugin/base/types.h"

namespace siphon {

std::string part_object(const PrivateId& id, std::uint64_t part_number) {
  std::array<char, 24> number;
  std::snprintf(number.data(), number.size(), ".%08llx",
                static_cast<unsigned long long>(part_number));
  return "siphon." + to_hex(id) + number.data();
}

bool parse_part_object(std::string_view object, PrivateId& id, std::uint64_t& part_number) {
  constexpr std::string_view kPrefix = "siphon.";
  constexpr std::size_t kIdDigits = 32, kLeastDigits = 8;
  if (!object.starts_with(kPrefix)) return false;
  object.remove_prefix(kPrefix.size());
  if (object.size() < kIdDigits + 1 + kLeastDigits || object[kIdDigits] != '.') return false;
  if (!from_hex(object.substr(0, kIdDigits), id.bytes) || id.empty()) return false;
  const std::string_view digits = object.substr(kIdDigits + 1);
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), part_number, 16);
  return error == std::errc() && end == digits.data() + digits.size() && part_number <= UINT32_MAX;
}

std::uint64_t believable_parts(std::uint64_t extent_bytes, std::uint32_t part_bytes,
                               std::uint64_t max_extent_bytes, bool& open_ended) {
  constexpr std::uint32_t kLeastPartBytes = 64 << 10;
  const std::uint64_t part = std::max(part_bytes, kLeastPartBytes);
  if (extent_bytes > max_extent_bytes || part_bytes < kLeastPartBytes) open_ended = true;
  const std::uint64_t bytes = std::min(extent_bytes, max_extent_bytes);
  return std::min<std::uint64_t>(bytes / part + (bytes % part != 0), UINT32_MAX);
}

int remove_parts(librados::IoCtx& io, const PrivateId& id, std::uint64_t at_least,
                 bool open_ended) try {
  int first_error = 0;
  std::uint64_t absent_in_a_row = 0;
  std::uint64_t next = 0;
  // Part numbers have 32 bits, which bounds the walk whatever answers come.
  while (next < at_least || (open_ended && absent_in_a_row < kPartGapLimit && next <= UINT32_MAX)) {
    const std::size_t count =
        next < at_least ? std::min<std::uint64_t>(kAioWindow, at_least - next) : kAioWindow;
    std::array<int, kAioWindow> results{};
    run_window(count, results, [&](std::size_t i, librados::AioCompletion* completion) {
      librados::ObjectWriteOperation operation;
      operation.remove();
      return io.aio_operate(part_object(id, next + i), completion, &operation,
                            librados::OPERATION_FULL_TRY);
    });
    for (std::size_t i = 0; i < count; ++i) {
      absent_in_a_row = results[i] == -ENOENT ? absent_in_a_row + 1 : 0;
      if (results[i] < 0 && results[i] != -ENOENT && first_error == 0) first_error = results[i];
    }
    // No answer in time: every further window would take as long.
    if (first_error == -ETIMEDOUT) return first_error;
    next += count;
  }
  return first_error;
} catch (const std::exception&) {
  return -ENOMEM;
}

namespace {

// A window of parts from number `next` on: their sizes, where `results` are not negative.
void stat_parts(librados::IoCtx& io, const PrivateId& id, std::uint64_t next,
                std::array<int, kAioWindow>& results,
                std::array<std::uint64_t, kAioWindow>& sizes) {
  run_window(kAioWindow, results, [&](std::size_t i, librados::AioCompletion* completion) {
    librados::ObjectReadOperation operation;
    operation.stat2(&sizes[i], nullptr, nullptr);
    return io.aio_operate(part_object(id, next + i), completion, &operation, nullptr);
  });
}

}  // namespace

int find_parts_end(librados::IoCtx& io, const PrivateId& id, std::uint32_t part_bytes,
                   std::uint64_t& end_bytes) try {
  end_bytes = 0;
  std::uint64_t absent_in_a_row = 0;
  for (std::uint64_t next = 0; absent_in_a_row < kPartGapLimit && next <= UINT32_MAX;
       next += kAioWindow) {
    std::array<int, kAioWindow> results{};
    std::array<std::uint64_t, kAioWindow> sizes{};
    stat_parts(io, id, next, results, sizes);
    for (std::size_t i = 0; i < kAioWindow; ++i) {
      if (results[i] < 0 && results[i] != -ENOENT) return results[i];
      absent_in_a_row = results[i] == -ENOENT ? absent_in_a_row + 1 : 0;
      if (results[i] == -ENOENT) continue;
      end_bytes = (next + i) * part_bytes + std::min<std::uint64_t>(sizes[i], part_bytes);
    }
  }
  return 0;
} catch (const std::exception&) {
  return -ENOMEM;
}

int measure_parts(librados::IoCtx& io, const PrivateId& id, std::uint32_t part_bytes,
                  std::uint64_t& total_bytes) try {
  total_bytes = 0;
  for (std::uint64_t next = 0; next <= UINT32_MAX; next += kAioWindow) {
    std::array<int, kAioWindow> results{};
    std::array<std::uint64_t, kAioWindow> sizes{};
    stat_parts(io, id, next, results, sizes);
    for (std::size_t i = 0; i < kAioWindow; ++i) {
      if (results[i] == -ENOENT) return 0;
      if (results[i] < 0) return results[i];
      total_bytes += std::min<std::uint64_t>(sizes[i], part_bytes);
      if (sizes[i] < part_bytes) return 0;
    }
  }
  return 0;
} catch (const std::exception&) {
  return -ENOMEM;
}

}  // namespace siphon
