#include "plugin/cli/headers.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <map>
#include <memory>
#include <stop_token>
#include <thread>

#include "plugin/base/ticker.h"
#include "plugin/cli/devices.h"
#include "plugin/core/mutex.h"
#include "plugin/rpc/source_caller.h"
#include "plugin/stream/socket_address.h"
#include "plugin/transfer/second_call.h"
#include "plugin/transfer/settings.h"

namespace siphon::cli {
namespace {

constexpr std::size_t kDaemonsAtOnce = 8;
constexpr std::chrono::milliseconds kLook{50};

// A stop token that follows Ctrl-C and the clock. Where there is no thread for that, what waits for
// it ends by its own deadline.
class StopWhen {
 public:
  StopWhen(const std::atomic<bool>& interrupted, Deadline until)
      : ticker_(Ticker::start(Side::kRequester, kLook, [this, &interrupted, until] {
          if (!interrupted.load() && Deadline::clock::now() < until) return true;
          source_.request_stop();
          return false;
        })) {}
  std::stop_token token() const { return source_.get_token(); }

 private:
  std::stop_source source_;
  const Result<Ticker> ticker_;  // last: it ends before what it uses
};

// The address that calls to `device` come from: a source answers to no other.
Result<std::string> address_towards(const std::string& device) {
  auto endpoint = parse_endpoint(device);
  if (!endpoint) return fail(std::move(endpoint).error());
  auto there = to_socket_address(endpoint->address, endpoint->port);
  if (!there) return fail(std::move(there).error());
  const auto failed = [&](int why) {
    return fail(error_from_errno(why, "find the way to " + device, Side::kRequester));
  };
  // Nothing is sent: the kernel chooses the route.
  const int fd = ::socket(there->storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return failed(errno);
  SocketAddress own;
  own.size = sizeof own.storage;
  const bool found =
      ::connect(fd, reinterpret_cast<const sockaddr*>(&there->storage), there->size) == 0 &&
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&own.storage), &own.size) == 0;
  const int why = errno;
  ::close(fd);
  if (!found) return failed(why);
  auto here = to_endpoint(own);
  if (!here) return fail(std::move(here).error());
  return here->address;
}

// One call. `answers`: in the order of `extents`; those of which nothing was said are left alone.
Status ask(SourceCaller& caller, const std::string& device, std::vector<std::string> extents,
           std::chrono::milliseconds at_most, const std::stop_token& stop,
           const std::function<void(std::size_t, Result<SealedHeader>)>& on_answer) {
  if (stop.stop_requested()) return fail(Code::kCancelled, device + " was not asked");
  auto own = address_towards(device);
  if (!own) return fail(std::move(own).error());
  StreamCall call;
  call.transfer_id = new_transfer_id();
  call.source_address = device;
  call.extents = std::move(extents);
  call.data = {*own, 0};
  call.target_device = "siphon";
  call.max_frame_bytes = kMiB;
  call.minimum_rate = TransferSettings{}.minimum_rate;
  call.deadline = at_most;
  call.headers_only = true;
  call.ticket = Ticket::make(ticket_binding(call));
  const auto take = [&](const SourceReport& report) {
    for (const SourceReport::Extent& e : report.extents) {
      if (e.index >= call.extents.size()) continue;
      if (e.claim) {
        on_answer(e.index, e.claim->header);
      } else {
        on_answer(e.index, fail(e.claim.error()));
      }
    }
  };
  return caller.stream(call, take, stop).status;
}

}  // namespace

std::vector<HeaderSeen> daemon_headers(const Session& session,
                                       const std::vector<Address>& addresses,
                                       std::chrono::milliseconds at_most) {
  std::vector<HeaderSeen> answers(addresses.size());
  if (addresses.empty()) return answers;
  std::vector<bool> answered(addresses.size(), false);
  std::map<std::string, std::vector<std::size_t>> by_device;
  for (std::size_t i = 0; i < addresses.size(); ++i) {
    by_device[addresses[i].device].push_back(i);
  }
  std::vector<std::pair<std::string, std::vector<std::size_t>>> devices(by_device.begin(),
                                                                        by_device.end());
  const StopWhen stop(session.stop(), deadline_in(at_most));
  const auto caller = rpc::make_source_caller(session.device_options());
  Mutex mutex;  // answers, answered
  run_parallel(devices.size(), kDaemonsAtOnce, [&](std::size_t d) {
    const std::string& device = devices[d].first;
    const std::vector<std::size_t>& items = devices[d].second;
    for (std::size_t from = 0; from < items.size(); from += kMaxExtentsPerTransfer) {
      const std::size_t count = std::min(kMaxExtentsPerTransfer, items.size() - from);
      std::vector<std::string> names;
      for (std::size_t i = 0; i < count; ++i) names.push_back(addresses[items[from + i]].extent);
      Status status = ask(*caller, device, std::move(names), at_most, stop.token(),
                          [&](std::size_t i, Result<SealedHeader> answer) {
                            const MutexLock lock(mutex);
                            HeaderSeen& seen = answers[items[from + i]];
                            seen.status = answer ? Status() : fail(answer.error());
                            if (answer) seen.header = std::move(*answer);
                            answered[items[from + i]] = true;
                          });
      const MutexLock lock(mutex);
      for (std::size_t i = 0; i < count; ++i) {
        if (answered[items[from + i]]) continue;
        answers[items[from + i]].status =
            status ? fail(Code::kUnavailable, device + " said nothing of this extent")
                   : fail(status.error());
      }
      if (!status && session.interrupted()) break;
    }
  });
  return answers;
}

}  // namespace siphon::cli
