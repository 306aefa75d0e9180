#include "plugin/base/types.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <new>

#include "plugin/core/names.h"

namespace siphon {
namespace {

bool printable(std::string_view text) {
  for (char c : text) {
    if (c < 0x20 || c > 0x7e) return false;
  }
  return true;
}

// What is common to pool and namespace names.
Status check_location_part(std::string_view what, std::string_view name) {
  const std::string label = std::string(what) + " name";
  if (name.size() > kMaxNamespaceBytes) {
    return fail(Code::kInvalidArgument,
                label + " is longer than " + std::to_string(kMaxNamespaceBytes) + " bytes");
  }
  if (!printable(name)) {
    return fail(Code::kInvalidArgument, label + " holds a byte that is not printable ASCII");
  }
  return {};
}

const unsigned char* as_uchar(std::span<const std::byte> bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::string Location::to_string() const { return nspace.empty() ? pool : pool + "/" + nspace; }

Result<ExtentPath> parse_extent_path(std::string_view text) {
  auto bad = [&](const std::string& why) {
    return fail(Code::kInvalidArgument, why, Side::kRequester, "write POOL/EXTENT");
  };
  if (text.empty()) return bad("the path is empty");
  ExtentPath path;
  const auto first = text.find('/');
  path.location.pool = text.substr(0, first);
  SIPHON_TRY(check_location_part("pool", path.location.pool));
  if (first != std::string_view::npos) {
    std::string_view rest = text.substr(first + 1);
    if (const auto second = rest.find('/'); second != std::string_view::npos) {
      path.location.nspace = rest.substr(0, second);
      if (path.location.nspace.empty()) return bad("the namespace in the path is empty");
      if (path.location.pool.empty()) return bad("the pool name in the path is empty");
      SIPHON_TRY(check_location_part("namespace", path.location.nspace));
      rest = rest.substr(second + 1);
    }
    path.extent = rest;
  }
  if (!path.extent.empty()) SIPHON_TRY(check_extent_name(path.extent));
  return path;
}

Status check_extent_name(std::string_view name) {
  auto bad = [](const std::string& why) {
    return fail(Code::kInvalidArgument, "the extent name " + why, Side::kRequester);
  };
  if (name.empty()) return bad("is empty");
  if (name.size() > kMaxExtentNameBytes) {
    return bad("is longer than " + std::to_string(kMaxExtentNameBytes) + " bytes");
  }
  if (name.front() == '.') return bad("starts with '.'");
  if (name.find('/') != std::string_view::npos) return bad("holds a '/'");
  if (!printable(name)) return bad("holds a byte that is not printable ASCII");
  return {};
}

void fill_random(std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t got = ::getrandom(out.data(), out.size(), 0);
    if (got > 0) {
      out = out.subspan(static_cast<std::size_t>(got));
    } else if (errno != EINTR) {
      std::abort();  // a kernel without getrandom: nothing secret can be made here
    }
  }
}

PrivateId new_private_id() {
  PrivateId id;
  do {
    fill_random(id.bytes);
  } while (id.empty());
  return id;
}

std::string to_hex(std::span<const std::byte> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(bytes.size() * 2);
  for (std::byte b : bytes) {
    text += kDigits[static_cast<unsigned>(b) >> 4];
    text += kDigits[static_cast<unsigned>(b) & 15];
  }
  return text;
}

bool from_hex(std::string_view text, std::span<std::byte> out) {
  if (text.size() % 2 != 0 || text.size() / 2 != out.size()) return false;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const int high = hex_digit(text[2 * i]);
    const int low = hex_digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    out[i] = static_cast<std::byte>(high * 16 + low);
  }
  return true;
}

std::string crc32_hex(std::uint32_t crc) {
  char text[9];
  std::snprintf(text, sizeof(text), "%08x", crc);
  return text;
}

std::uint64_t now_unix_ms() {
  using std::chrono::system_clock;
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(system_clock::now().time_since_epoch())
          .count());
}

std::string rfc3339(std::uint64_t unix_ms) {
  constexpr std::uint64_t kLastMs = 253402300799999;  // the end of the year 9999
  if (unix_ms > kLastMs) unix_ms = kLastMs;
  const auto seconds = static_cast<std::time_t>(unix_ms / 1000);
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  char text[80];
  std::snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02d.%03uZ", utc.tm_year + 1900,
                utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                static_cast<unsigned>(unix_ms % 1000));
  return text;
}

std::string human_bytes(std::uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < kKiB) return std::to_string(bytes) + " B";
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  // 1023.995 is where "%.2f" would print 1024.00.
  while (value >= 1023.995 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof(text), "%.2f %s", value, kUnits[unit]);
  return text;
}

Secret::Secret(std::span<const std::byte> bytes) : bytes_(bytes.begin(), bytes.end()) {}

Secret Secret::random(std::size_t bytes) {
  Secret secret;
  secret.bytes_.resize(bytes);
  fill_random(secret.bytes_);
  return secret;
}

Secret::Secret(Secret&& other) noexcept : bytes_(std::move(other.bytes_)) {}

Secret& Secret::operator=(Secret&& other) noexcept {
  if (this != &other) {
    wipe();
    bytes_ = std::move(other.bytes_);
    other.bytes_.clear();
  }
  return *this;
}

Secret::~Secret() { wipe(); }

bool Secret::equals(std::span<const std::byte> other) const {
  return equal_constant_time(bytes_, other);
}

void Secret::wipe() {
  if (!bytes_.empty()) OPENSSL_cleanse(bytes_.data(), bytes_.size());
  bytes_.clear();
}

// OpenSSL fails in these two only for want of memory.
Sha256 hmac_sha256(std::span<const std::byte> key, std::span<const std::byte> message) {
  Sha256 out;
  unsigned int size = 0;
  // A null key would mean "reuse the last key".
  static constexpr unsigned char kEmpty[1] = {};
  const unsigned char* key_data = key.empty() ? kEmpty : as_uchar(key);
  if (::HMAC(EVP_sha256(), key_data, static_cast<int>(key.size()), as_uchar(message),
             message.size(), reinterpret_cast<unsigned char*>(out.data()), &size) == nullptr ||
      size != out.size()) {
    throw std::bad_alloc();
  }
  return out;
}

Sha256 sha256(std::span<const std::byte> message) {
  Sha256 out;
  unsigned int size = 0;
  if (EVP_Digest(message.data(), message.size(), reinterpret_cast<unsigned char*>(out.data()),
                 &size, EVP_sha256(), nullptr) != 1 ||
      size != out.size()) {
    throw std::bad_alloc();
  }
  return out;
}

Sha256Stream::Sha256Stream() : context_(EVP_MD_CTX_new()) {
  if (!context_ ||
      EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_.get()), EVP_sha256(), nullptr) != 1) {
    throw std::bad_alloc();
  }
}

void Sha256Stream::Free::operator()(void* context) const {
  EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context));
}

void Sha256Stream::update(std::span<const std::byte> bytes) {
  if (EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_.get()), bytes.data(), bytes.size()) != 1) {
    throw std::bad_alloc();
  }
}

Sha256 Sha256Stream::finish() {
  Sha256 out;
  unsigned int size = 0;
  if (EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_.get()),
                         reinterpret_cast<unsigned char*>(out.data()), &size) != 1 ||
      size != out.size()) {
    throw std::bad_alloc();
  }
  return out;
}

bool equal_constant_time(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && (a.empty() || CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0);
}

std::array<std::byte, 16> grant_key_id(std::span<const std::byte, 16> nonce) {
  static constexpr std::string_view kLabel = "siphon grant key id\n";
  std::array<std::byte, kLabel.size() + 16> text;
  std::memcpy(text.data(), kLabel.data(), kLabel.size());
  std::memcpy(text.data() + kLabel.size(), nonce.data(), nonce.size());
  const Sha256 hash = sha256(text);
  std::array<std::byte, 16> id;
  std::copy_n(hash.begin(), id.size(), id.begin());
  return id;
}

}  // namespace siphon
