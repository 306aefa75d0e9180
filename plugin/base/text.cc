#include "plugin/base/text.h"

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <limits>
#include <utility>
#include <vector>

namespace siphon {
namespace {

unsigned byte_at(std::string_view text, std::size_t i) {
  return static_cast<unsigned char>(text[i]);
}

struct CodePoint {
  std::size_t bytes = 0;  // 0: not UTF-8
  std::uint32_t value = 0;
};

// The one that begins at `at`.
CodePoint decode(std::string_view text, std::size_t at) {
  const unsigned first = byte_at(text, at);
  if (first < 0x80) return {1, first};
  if (first < 0xc2 || first > 0xf4) return {};
  const std::size_t bytes = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  if (text.size() - at < bytes) return {};
  std::uint32_t value = first & (0xffu >> (bytes + 1));
  for (std::size_t i = 1; i < bytes; ++i) {
    const unsigned next = byte_at(text, at + i);
    if ((next & 0xc0u) != 0x80u) return {};
    value = value << 6 | (next & 0x3fu);
  }
  const bool overlong = (bytes == 3 && value < 0x800) || (bytes == 4 && value < 0x10000);
  const bool surrogate = value >= 0xd800 && value <= 0xdfff;
  if (overlong || surrogate || value > 0x10ffff) return {};
  return {bytes, value};
}

bool steers(std::uint32_t c) {
  return c < 0x20 || (c >= 0x7f && c < 0xa0) ||  // C0, DEL, C1
         c == 0x200e || c == 0x200f || (c >= 0x2028 && c <= 0x202e) ||
         (c >= 0x2066 && c <= 0x2069) || c == 0xfeff;
}

std::string escape(std::string_view text, bool keep_lines) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint c = decode(text, i);
    const std::size_t bytes = std::max<std::size_t>(c.bytes, 1);
    if (c.bytes != 0 && !steers(c.value)) {
      out.append(text, i, bytes);
    } else if (text[i] == '\n') {
      out += keep_lines ? "\n" : "\\n";
    } else if (text[i] == '\t') {
      out += "\\t";
    } else {
      for (std::size_t b = i; b < i + bytes; ++b) {
        out += {'\\', 'x', kDigits[byte_at(text, b) >> 4], kDigits[byte_at(text, b) & 15]};
      }
    }
    i += bytes;
  }
  return out;
}

}  // namespace

std::string escaped(std::string_view text) { return escape(text, /*keep_lines=*/false); }

std::string escaped_lines(std::string_view text) { return escape(text, /*keep_lines=*/true); }

bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint c = decode(text, i);
    if (c.bytes == 0) return false;
    i += c.bytes;
  }
  return true;
}

std::string base64(std::string_view bytes) {
  static constexpr char kAlphabet[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t n = std::min<std::size_t>(3, bytes.size() - i);
    unsigned group = 0;
    for (std::size_t k = 0; k < 3; ++k) group = group << 8 | (k < n ? byte_at(bytes, i + k) : 0);
    for (std::size_t k = 0; k < 4; ++k) {
      out += k <= n ? kAlphabet[group >> (18 - 6 * k) & 63] : '=';
    }
  }
  return out;
}

std::optional<std::uint64_t> parse_bytes(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789";
  const std::size_t whole = std::min(text.find_first_not_of(kDigits), text.size());
  std::size_t end = whole;
  if (end < text.size() && text[end] == '.') {
    end = std::min(text.find_first_not_of(kDigits, whole + 1), text.size());
    if (end == whole + 1) return std::nullopt;
  }
  if (whole == 0 || end > 24) return std::nullopt;
  std::string unit(text.substr(end));
  if (unit == " ") return std::nullopt;
  if (unit.starts_with(' ')) unit.erase(0, 1);
  for (char& c : unit) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  constexpr std::string_view kUnits = "bkmgtp";
  std::size_t power = 0;
  if (!unit.empty()) {
    power = kUnits.find(unit.front());
    const std::string_view rest = std::string_view(unit).substr(1);
    const bool known = rest.empty() || (power > 0 && (rest == "b" || rest == "ib"));
    if (power == std::string_view::npos || !known) return std::nullopt;
  }
  const std::uint64_t factor = std::uint64_t{1} << (10 * power);
  constexpr std::uint64_t kMost = std::numeric_limits<std::int64_t>::max();
  std::uint64_t value = 0;
  for (const char c : text.substr(0, whole)) {
    const auto digit = static_cast<std::uint64_t>(c - '0');
    if (value > (kMost - digit) / 10) return std::nullopt;
    value = value * 10 + digit;
  }
  if (value > kMost / factor) return std::nullopt;
  value *= factor;
  long double weight = static_cast<long double>(factor), more = 0;
  bool any = value != 0;
  for (std::size_t i = whole + 1; i < end; ++i) {
    weight /= 10;
    more += weight * static_cast<long double>(text[i] - '0');
    any = any || text[i] != '0';
  }
  value += static_cast<std::uint64_t>(more + 1e-9L);
  if (value > kMost || (any && value == 0)) return std::nullopt;
  return value;
}

std::string_view closest(std::string_view word, std::span<const std::string_view> words) {
  std::string_view best;
  std::size_t best_distance = std::max<std::size_t>(word.size() / 3, 1) + 1;
  for (const std::string_view other : words) {
    // Levenshtein's distance, one row at a time.
    std::vector<std::size_t> row(other.size() + 1);
    for (std::size_t j = 0; j < row.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= word.size(); ++i) {
      std::size_t diagonal = std::exchange(row[0], i);
      for (std::size_t j = 1; j < row.size(); ++j) {
        const std::size_t changed = diagonal + (word[i - 1] == other[j - 1] ? 0 : 1);
        diagonal = row[j];
        row[j] = std::min({changed, row[j] + 1, row[j - 1] + 1});
      }
    }
    if (row.back() < best_distance) {
      best_distance = row.back();
      best = other;
    }
  }
  return best;
}

std::string shell_word(std::string_view word) {
  const bool plain = !word.empty() && std::ranges::all_of(word, [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("_@%+=:,./-").find(c) != std::string_view::npos;
  });
  if (plain) return std::string(word);
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string counted(std::uint64_t count, std::string_view noun) {
  std::string text = std::to_string(count) + " ";
  text += noun;
  if (count != 1) text += 's';
  return text;
}

}  // namespace siphon
