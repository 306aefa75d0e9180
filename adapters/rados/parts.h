// The parts of one private id: their names, their removal, their total length.
//
// All walks keep kAioWindow operations in flight, block for at most the OSD timeout per window,
// and let no exception out. Thread safe; `io` carries the extent's locator key.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "plugin/core/sealed_header.h"
#include "rados/librados.hpp"

namespace siphon {

// "siphon.<32 hex digits>.<part number, at least 8 hex digits>", see docs/extent_format.md.
std::string part_object(const PrivateId& id, std::uint64_t part_number);

// The reverse; false for the name of anything else.
bool parse_part_object(std::string_view object, PrivateId& id, std::uint64_t& part_number);

constexpr std::uint64_t parts_of(std::uint64_t extent_bytes, std::uint32_t part_bytes) {
  return part_bytes == 0 ? 0 : (extent_bytes + part_bytes - 1) / part_bytes;
}

// Parts that an extent of `extent_bytes` has, as far as can be believed: a register that says more
// than `max_extent_bytes` (damaged, or from before the limit was lowered) sets `open_ended`
// instead.
std::uint64_t believable_parts(std::uint64_t extent_bytes, std::uint32_t part_bytes,
                               std::uint64_t max_extent_bytes, bool& open_ended);

// Removes parts [0, at_least), and with `open_ended` goes on until kPartGapLimit numbers in a row
// held none. Those not there are no error. 0 or the first negative errno (the rest is tried all the
// same).
int remove_parts(librados::IoCtx& io, const PrivateId& id, std::uint64_t at_least, bool open_ended);

// Bytes from the start up to the first part that is missing or shorter than `part_bytes`.
int measure_parts(librados::IoCtx& io, const PrivateId& id, std::uint32_t part_bytes,
                  std::uint64_t& total_bytes);

// Where the last part that is there ends, whatever is missing or short before it: bytes from the
// start. Looks until kPartGapLimit numbers in a row held none.
int find_parts_end(librados::IoCtx& io, const PrivateId& id, std::uint32_t part_bytes,
                   std::uint64_t& end_bytes);

inline constexpr std::uint64_t kPartGapLimit = 64;

}  // namespace siphon
