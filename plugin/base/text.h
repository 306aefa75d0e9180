// Text from outside (names, paths, what a peer says) made fit for a terminal, a log, JSON.
// Pure functions; thread compatible.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace siphon {

// `text` with everything that could steer a terminal or break a line written as \n, \t, \x1b: the
// control characters, bytes that are not UTF-8, and what turns the direction of writing.
std::string escaped(std::string_view text);
// The same, but for line feeds: text of several lines.
std::string escaped_lines(std::string_view text);

// Well formed as of RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::string_view text);

// RFC 4648, with padding.
std::string base64(std::string_view bytes);

// "1 extent", "2 extents".
std::string counted(std::uint64_t count, std::string_view noun);

}  // namespace siphon
