// A provider whose stores move every byte through buffers of an exchange's region, copying from
// and to the caller's memory: the contract suite's buffers are plain heap, and the class reaches
// the region alone. Not part of the product: siphond's lanes use the region directly.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "adapters/extent_store.h"
#include "adapters/objclass/exchange_client.h"
#include "plugin/base/buffer_pool.h"

namespace siphon::contract {

inline Result<BufferPool::Buffer> lease(BufferPool& pool, std::size_t bytes) {
  return pool.acquire(bytes, deadline_in(std::chrono::seconds(30)));
}

class BouncedReader final : public ExtentReader {
 public:
  BouncedReader(std::unique_ptr<ExtentReader> inner, BufferPool& pool)
      : inner_(std::move(inner)), pool_(pool) {}
  const ExtentInfo& info() const override { return inner_->info(); }
  std::size_t prefetched_bytes() const override { return inner_->prefetched_bytes(); }
  Status read(std::uint64_t offset_bytes, std::span<std::byte> out) override {
    if (out.empty()) return inner_->read(offset_bytes, out);
    auto buffer = lease(pool_, out.size());
    if (!buffer) return fail(std::move(buffer).error());
    SIPHON_TRY(inner_->read(offset_bytes, buffer->span()));
    std::ranges::copy(buffer->span(), out.begin());
    return {};
  }

 private:
  const std::unique_ptr<ExtentReader> inner_;
  BufferPool& pool_;
};

class BouncedScratch final : public ScratchExtent {
 public:
  BouncedScratch(std::unique_ptr<ScratchExtent> inner, BufferPool& pool)
      : inner_(std::move(inner)), pool_(pool) {}
  const PrivateId& private_id() const override { return inner_->private_id(); }
  std::uint32_t part_bytes() const override { return inner_->part_bytes(); }
  Status write(std::uint64_t offset_bytes, std::span<const std::byte> in) override {
    if (in.empty()) return inner_->write(offset_bytes, in);
    auto buffer = lease(pool_, in.size());
    if (!buffer) return fail(std::move(buffer).error());
    std::ranges::copy(in, buffer->data());
    return inner_->write(offset_bytes, buffer->span());
  }
  Status read(std::uint64_t offset_bytes, std::span<std::byte> out) override {
    if (out.empty()) return inner_->read(offset_bytes, out);
    auto buffer = lease(pool_, out.size());
    if (!buffer) return fail(std::move(buffer).error());
    SIPHON_TRY(inner_->read(offset_bytes, buffer->span()));
    std::ranges::copy(buffer->span(), out.begin());
    return {};
  }
  Status publish(const SealedHeader& header, bool replace, ExtentState as_state) override {
    return inner_->publish(header, replace, as_state);
  }
  bool settled() const override { return inner_->settled(); }
  Status abort() override { return inner_->abort(); }

 private:
  const std::unique_ptr<ScratchExtent> inner_;
  BufferPool& pool_;
};

class BouncedStore final : public ExtentStore {
 public:
  BouncedStore(ExtentStore& inner, BufferPool& send, BufferPool& receive)
      : inner_(inner), send_(send), receive_(receive) {}

  const Location& location() const override { return inner_.location(); }
  StoreLimits limits() const override { return inner_.limits(); }
  StoreCounters counters() const override { return inner_.counters(); }
  Status check_ready(bool writable) override { return inner_.check_ready(writable); }
  Result<ExtentInfo> stat(std::string_view name) override { return inner_.stat(name); }
  Status check_parts(const ExtentInfo& info) override { return inner_.check_parts(info); }
  Status check_kept(std::string_view name, const TrashEntry& entry) override {
    return inner_.check_kept(name, entry);
  }
  Result<ExtentPage> list(std::string_view cursor, std::size_t max_names,
                          Listing listing) override {
    return inner_.list(cursor, max_names, listing);
  }
  Result<std::unique_ptr<ExtentReader>> open(std::string_view name, std::span<std::byte> prefetch,
                                             bool allow_open) override {
    BufferPool::Buffer buffer;
    if (!prefetch.empty()) {
      auto leased = lease(send_, prefetch.size());
      if (!leased) return fail(std::move(leased).error());
      buffer = std::move(*leased);
    }
    auto reader = inner_.open(name, buffer.span(), allow_open);
    if (!reader) return fail(std::move(reader).error());
    std::ranges::copy(buffer.span().first((*reader)->prefetched_bytes()), prefetch.begin());
    return std::make_unique<BouncedReader>(*std::move(reader), send_);
  }
  std::vector<Result<std::unique_ptr<ExtentReader>>> open_many(
      std::span<const OpenRequest> requests) override {
    std::vector<BufferPool::Buffer> buffers;
    std::vector<OpenRequest> bounced;
    for (const OpenRequest& request : requests) {
      buffers.push_back(lease(send_, std::max<std::size_t>(1, request.prefetch.size())).value());
      bounced.push_back({request.name, buffers.back().span().first(request.prefetch.size())});
    }
    auto readers = inner_.open_many(bounced);
    for (std::size_t i = 0; i < readers.size(); ++i) {
      if (!readers[i]) continue;
      std::ranges::copy(bounced[i].prefetch.first((*readers[i])->prefetched_bytes()),
                        requests[i].prefetch.begin());
      readers[i] = std::make_unique<BouncedReader>(*std::move(readers[i]), send_);
    }
    return readers;
  }
  Result<std::unique_ptr<ScratchExtent>> begin(std::string_view name,
                                               const BeginOptions& options) override {
    auto scratch = inner_.begin(name, options);
    if (!scratch) return fail(std::move(scratch).error());
    return std::make_unique<BouncedScratch>(*std::move(scratch), receive_);
  }
  Status put_inline(std::string_view name, const PrivateId& id, std::span<const std::byte> bytes,
                    const SealedHeader& header) override {
    auto buffer = lease(receive_, bytes.size());
    if (!buffer) return fail(std::move(buffer).error());
    std::ranges::copy(bytes, buffer->data());
    return inner_.put_inline(name, id, buffer->span(), header);
  }
  std::vector<Status> put_inline_many(std::span<const InlinePut> puts) override {
    std::vector<BufferPool::Buffer> buffers;
    std::vector<InlinePut> bounced(puts.begin(), puts.end());
    for (InlinePut& put : bounced) {
      buffers.push_back(lease(receive_, put.bytes.size()).value());
      std::ranges::copy(put.bytes, buffers.back().data());
      put.bytes = buffers.back().span();
    }
    return inner_.put_inline_many(bounced);
  }
  Status seal(std::string_view name, const ExtentInfo& seen, std::uint64_t offset_bytes,
              std::span<const std::byte> tail, const SealedHeader& header) override {
    return inner_.seal(name, seen, offset_bytes, tail, header);
  }
  Status trash(std::string_view name, const ExtentInfo& seen) override {
    return inner_.trash(name, seen);
  }
  Status fence(std::string_view name, const PrivateId& id) override {
    return inner_.fence(name, id);
  }
  Status collect(std::string_view name, const PrivateId& id) override {
    return inner_.collect(name, id);
  }
  Status purge(std::string_view name, const PrivateId& id, std::uint64_t trashed_unix_ms) override {
    return inner_.purge(name, id, trashed_unix_ms);
  }
  Result<HeadRegister> inspect(std::string_view name) override { return inner_.inspect(name); }
  Status restore(std::string_view name, const PrivateId& id) override {
    return inner_.restore(name, id);
  }
  Result<std::size_t> purge_trash(std::string_view name) override {
    return inner_.purge_trash(name);
  }

 private:
  ExtentStore& inner_;
  BufferPool& send_;
  BufferPool& receive_;
};

// Thread safe. `exchange` and `inner` must outlive it.
class BouncedProvider final : public StoreProvider {
 public:
  BouncedProvider(StoreProvider& inner, const ExchangeClient& exchange)
      : inner_(inner), send_(exchange.send_half()), receive_(exchange.receive_half()) {}
  Result<ExtentStore*> open(const Location& location) override {
    auto store = inner_.open(location);
    if (!store) return store;
    std::lock_guard lock(mutex_);
    auto& bounced = stores_[location];
    if (!bounced) bounced = std::make_unique<BouncedStore>(**store, send_, receive_);
    return bounced.get();
  }
  Result<std::int64_t> pool_id(const std::string& pool) override { return inner_.pool_id(pool); }

 private:
  StoreProvider& inner_;
  BufferPool send_, receive_;
  std::mutex mutex_;
  std::map<Location, std::unique_ptr<BouncedStore>> stores_;
};

}  // namespace siphon::contract
