#include "plugin/base/text.h"

#include <algorithm>
#include <cstddef>

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

std::string counted(std::uint64_t count, std::string_view noun) {
  std::string text = std::to_string(count) + " ";
  text += noun;
  if (count != 1) text += 's';
  return text;
}

}  // namespace siphon
