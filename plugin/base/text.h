// Text from outside (names, paths, what a peer says) made fit for a terminal, a log, JSON.
// Pure functions; thread compatible.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
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

// "4096", "50M", "5.5 GiB": bytes, in powers of 1024 (K, M, G, T, P; case does not matter; a B or
// iB behind it is allowed). Nothing: not of this form, negative, above 2^63 - 1, or above zero and
// under one byte.
std::optional<std::uint64_t> parse_bytes(std::string_view text);

// The one of `words` that is closest to `word`, by letters inserted, left out or changed; empty
// when none is close.
std::string_view closest(std::string_view word, std::span<const std::string_view> words);

// As a shell reads it as one word.
std::string shell_word(std::string_view word);

// "1 extent", "2 extents".
std::string counted(std::uint64_t count, std::string_view noun);

}  // namespace siphon
