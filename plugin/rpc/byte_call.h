// ByteCall: one call as the bytes of its messages. gRPC announces it when its metadata is there,
// and takes no thread for it and reads none of its messages before somebody asks: until then it
// costs what its metadata do. On the wire a call of one message, whatever the proto says of it,
// looks the same. `read` and `write` block, for one thread; deletes itself when all is over.
#pragma once

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <optional>

#include "plugin/core/mutex.h"

namespace siphon::rpc {

class ByteCall final : public grpc::ServerGenericBidiReactor {
 public:
  // Blocks. False: the caller has hung up, or has said all.
  bool read(grpc::ByteBuffer* message) {
    StartRead(message);
    return wait();
  }
  // Blocks until the caller's window has room. False: he has hung up.
  bool write(const grpc::ByteBuffer* message) {
    StartWrite(message);
    return wait();
  }
  // Finish(status), which does not block, is the last thing that may be done with it. So are these
  // two, for calls that get no thread: `going` counts them until gRPC has let go of the call.
  void refuse(const grpc::Status& status, std::atomic<int>& going) {
    count_in(going);
    Finish(status);
  }
  void answer(grpc::ByteBuffer message, std::atomic<int>& going) {
    count_in(going);
    answer_ = std::move(message);
    StartWriteAndFinish(&answer_, grpc::WriteOptions(), grpc::Status::OK);
  }

 private:
  ~ByteCall() override {
    if (going_ != nullptr) --*going_;
  }
  void OnReadDone(bool ok) override { settle(ok); }
  void OnWriteDone(bool ok) override { settle(ok); }
  void OnDone() override { delete this; }

  void count_in(std::atomic<int>& going) {
    going_ = &going;
    ++going;
  }

  bool wait() {
    MutexLock lock(mutex_);
    settled_.wait(lock, [this]() SIPHON_REQUIRES(mutex_) { return ok_.has_value(); });
    const bool ok = *ok_;
    ok_.reset();
    return ok;
  }
  void settle(bool ok) {
    // Also while it notifies: `wait` may be the last to need it.
    const MutexLock lock(mutex_);
    ok_ = ok;
    settled_.notify_one();
  }

  Mutex mutex_;
  Condition settled_;
  // How the one operation that is under way ended.
  std::optional<bool> ok_ SIPHON_GUARDED_BY(mutex_);
  std::atomic<int>* going_ = nullptr;
  grpc::ByteBuffer answer_;
};

}  // namespace siphon::rpc
