#include "plugin/transfer/receipt_record.h"

#include <concepts>
#include <cstring>

namespace siphon {

namespace {

constexpr std::uint8_t kVersion = 3;
constexpr std::uint8_t kVersionWithoutGone = 2;  // of an older release: read all the same

class Writer {
 public:
  void value(std::unsigned_integral auto number) {
    for (std::size_t i = 0; i < sizeof(number); ++i) {
      out_ += static_cast<char>(static_cast<std::uint64_t>(number) >> (8 * i) & 0xff);
    }
  }
  void value(std::int64_t number) { value(static_cast<std::uint64_t>(number)); }
  void value(bool flag) { value(static_cast<std::uint8_t>(flag ? 1 : 0)); }
  void value(const std::string& text) {
    value(static_cast<std::uint32_t>(text.size()));
    out_ += text;
  }
  template <std::size_t N>
  void value(const std::array<std::byte, N>& bytes) {
    out_.append(reinterpret_cast<const char*>(bytes.data()), N);
  }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

class Reader {
 public:
  explicit Reader(std::string_view in) : in_(in) {}
  template <std::unsigned_integral T>
  void value(T& number) {
    std::uint64_t sum = 0;
    const std::string_view raw = take(sizeof(T));
    for (std::size_t i = 0; i < raw.size(); ++i) {
      sum |= static_cast<std::uint64_t>(static_cast<unsigned char>(raw[i])) << (8 * i);
    }
    number = static_cast<T>(sum);
  }
  void value(std::int64_t& number) {
    std::uint64_t raw = 0;
    value(raw);
    number = static_cast<std::int64_t>(raw);
  }
  void value(bool& flag) {
    std::uint8_t raw = 0;
    value(raw);
    flag = raw != 0;
  }
  void value(std::string& text) {
    std::uint32_t length = 0;
    value(length);
    text = std::string(take(length));
  }
  template <std::size_t N>
  void value(std::array<std::byte, N>& bytes) {
    const std::string_view raw = take(N);
    if (raw.size() == N) std::memcpy(bytes.data(), raw.data(), N);
  }
  bool ok() const { return ok_; }
  bool whole() const { return ok_ && in_.empty(); }

 private:
  std::string_view take(std::size_t length) {
    if (!ok_ || length > in_.size()) {
      ok_ = false;
      return {};
    }
    const std::string_view piece = in_.substr(0, length);
    in_.remove_prefix(length);
    return piece;
  }
  std::string_view in_;
  bool ok_ = true;
};

// The one list of what a record holds, for both directions.
template <typename Io, typename R>
void each_field(Io& io, R& r) {
  io.value(r.transfer_id);
  io.value(r.source_extent);
  io.value(r.target_extent);
  for (auto* place : {&r.source, &r.target}) {
    io.value(place->pool);
    io.value(place->nspace);
    io.value(place->pool_id);
  }
  io.value(r.source_device);
  io.value(r.target_device);
  io.value(r.bytes);
  io.value(r.source_crc32);
  io.value(r.target_crc32);
  io.value(r.header.extent_bytes);
  io.value(r.header.content_bytes);
  io.value(r.header.crc32);
  io.value(r.header.block_count);
  io.value(r.header.part_bytes);
  io.value(r.header.format_version);
  io.value(r.header.sealed_unix_ms);
  io.value(r.header.content_digest);
  io.value(r.private_id.bytes);
  io.value(r.data_endpoint);
  io.value(r.lanes);
  io.value(r.started_unix_ms);
  io.value(r.finished_unix_ms);
  io.value(r.attempts);
  io.value(r.fallback_parts);
  io.value(r.already_there);
  io.value(r.blocks_checked);
}

template <typename Io, typename E>
void each_field_of_gone(Io& io, E& entry) {
  io.value(entry.id.bytes);
  io.value(entry.trashed_unix_ms);
  io.value(entry.header.extent_bytes);
}

}  // namespace

std::string encode_receipt(const Receipt& receipt) {
  Writer writer;
  writer.value(kVersion);
  each_field(writer, receipt);
  writer.value(static_cast<std::uint8_t>(receipt.left_for_good.size()));
  for (const TrashEntry& entry : receipt.left_for_good) each_field_of_gone(writer, entry);
  return writer.take();
}

std::optional<Receipt> decode_receipt(std::string_view record) {
  Reader reader(record);
  std::uint8_t version = 0;
  reader.value(version);
  Receipt receipt;
  if (version != kVersion && version != kVersionWithoutGone) return std::nullopt;
  each_field(reader, receipt);
  std::uint8_t gone = 0;
  if (version == kVersion) reader.value(gone);
  for (; gone > 0 && reader.ok(); --gone) {
    TrashEntry& entry = receipt.left_for_good.emplace_back();
    each_field_of_gone(reader, entry);
    entry.was_published = true;
  }
  if (!reader.whole()) return std::nullopt;
  return receipt;
}

}  // namespace siphon
