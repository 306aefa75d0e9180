// Bounded little-endian reading and writing of fixed-layout records.
//
// Every on-disk and on-wire record of Siphon (head register, block header, index, footer, frame
// header, handshake, class method input) goes through these two cursors, so that there is one
// place where a length is checked. Neither allocates, neither throws; an overrun sets a flag that
// the caller reads once at the end. Not thread safe (a cursor belongs to one function).
#pragma once

#include <array>
#include <boost/endian/conversion.hpp>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace siphon {

// Writes into a caller-owned buffer. `ok()` is false once anything did not fit.
class LeWriter {
 public:
  explicit LeWriter(std::span<std::byte> out) : out_(out) {}

  template <typename T>
  requires std::is_integral_v<T>
  void put(T value) {
    std::array<unsigned char, sizeof(T)> bytes;
    boost::endian::endian_store<T, sizeof(T), boost::endian::order::little>(bytes.data(), value);
    put_bytes(std::as_bytes(std::span(bytes)));
  }
  void put_bytes(std::span<const std::byte> bytes) {
    if (bytes.size() > out_.size() - used_) {
      ok_ = false;
      return;
    }
    if (!bytes.empty()) std::memcpy(out_.data() + used_, bytes.data(), bytes.size());
    used_ += bytes.size();
  }
  void put_zeros(std::size_t count) {
    if (count > out_.size() - used_) {
      ok_ = false;
      return;
    }
    std::memset(out_.data() + used_, 0, count);
    used_ += count;
  }

  std::size_t used() const { return used_; }
  bool ok() const { return ok_; }

 private:
  std::span<std::byte> out_;
  std::size_t used_ = 0;
  bool ok_ = true;
};

// Reads from a caller-owned buffer. After an overrun every further value is zero and `ok()` false.
class LeReader {
 public:
  explicit LeReader(std::span<const std::byte> in) : in_(in) {}

  template <typename T>
  requires std::is_integral_v<T> T get() {
    if (sizeof(T) > in_.size() - used_) {
      ok_ = false;
      used_ = in_.size();
      return 0;
    }
    const auto* raw = reinterpret_cast<const unsigned char*>(in_.data() + used_);
    used_ += sizeof(T);
    return boost::endian::endian_load<T, sizeof(T), boost::endian::order::little>(raw);
  }
  void get_bytes(std::span<std::byte> out) {
    if (out.size() > in_.size() - used_) {
      ok_ = false;
      used_ = in_.size();
      if (!out.empty()) std::memset(out.data(), 0, out.size());
      return;
    }
    if (!out.empty()) std::memcpy(out.data(), in_.data() + used_, out.size());
    used_ += out.size();
  }
  void skip(std::size_t count) {
    if (count > in_.size() - used_) {
      ok_ = false;
      used_ = in_.size();
      return;
    }
    used_ += count;
  }

  std::size_t used() const { return used_; }
  std::size_t remaining() const { return in_.size() - used_; }
  bool ok() const { return ok_; }

 private:
  std::span<const std::byte> in_;
  std::size_t used_ = 0;
  bool ok_ = true;
};

}  // namespace siphon
