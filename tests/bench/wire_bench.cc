// bench_wire: memory to memory between two processes on loopback.
//
//   tcp     blocking sockets, --message bytes a write, no checksum: the ceiling
//   tcp_zerocopy  the same with MSG_ZEROCOPY: what the sender's copy costs, or does not
//   siphon  listener, ticket, StreamSender and receive_lane, crc32 at both ends: what we ship,
//           over a store that copies its bytes into the buffers, as one that reads would, and a
//           sink that throws them away
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>

#include "plugin/base/crc32.h"
#include "plugin/stream/listener.h"
#include "plugin/stream/receiver.h"
#include "plugin/stream/sender.h"
#include "tests/bench/two_processes.h"

namespace siphon::bench {
namespace {

// ---- raw TCP -----------------------------------------------------------------------------------

int tcp_listen(std::uint16_t& port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (::bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(fd, 16) != 0 ||
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    die("tcp: listen");
  }
  port = ntohs(address.sin_port);
  return fd;
}

void tcp_receive(int fd, std::size_t message_bytes, std::atomic<std::uint64_t>& total) {
  std::vector<std::byte> buffer(message_bytes);
  while (true) {
    const ssize_t n = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (n <= 0) break;
    total += static_cast<std::uint64_t>(n);
  }
  ::close(fd);
}

// Takes the kernel's word that sends are over, without which it lets no more be pinned.
void take_completions(int fd, bool wait) {
  pollfd one{fd, 0, 0};  // POLLERR is always reported
  if (wait && ::poll(&one, 1, 10000) <= 0) die("tcp: no completion of a send");
  std::array<char, 256> control;
  msghdr message{};
  do {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
  } while (::recvmsg(fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT) >= 0);
}

void tcp_send(std::uint16_t port, std::span<const std::byte> pattern, std::uint64_t bytes,
              std::size_t message_bytes, bool zerocopy) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    die("tcp: connect");
  const int on = 1;
  if (zerocopy && ::setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on) != 0) {
    die("tcp: SO_ZEROCOPY");
  }
  for (std::uint64_t at = 0; at < bytes;) {
    const std::size_t offset = at % pattern.size();
    const std::size_t size =
        std::min<std::uint64_t>({message_bytes, bytes - at, pattern.size() - offset});
    const ssize_t n =
        ::send(fd, pattern.data() + offset, size, MSG_NOSIGNAL | (zerocopy ? MSG_ZEROCOPY : 0));
    const bool too_many = n < 0 && errno == ENOBUFS && zerocopy;
    if (n <= 0 && !too_many) die("tcp: send");
    if (zerocopy) take_completions(fd, too_many);
    if (n > 0) at += static_cast<std::uint64_t>(n);
  }
  ::close(fd);
}

void run_tcp(const Options& options, std::span<const std::byte> pattern, bool zerocopy) {
  const auto target = [&](const OtherEnd& other) {
    Introduction introduction;
    const int listener = tcp_listen(introduction.port);
    other.ready(introduction);
    std::atomic<std::uint64_t> total{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < options.lanes; ++i) {
      const int fd = ::accept(listener, nullptr, nullptr);
      threads.emplace_back([&, fd] { tcp_receive(fd, options.message_bytes, total); });
    }
    for (auto& thread : threads) thread.join();
    if (total != options.bytes) die("tcp: bytes are missing");
  };
  const auto source = [&](const Introduction& introduction) {
    std::vector<std::thread> threads;
    const std::uint64_t lanes = static_cast<std::uint64_t>(options.lanes);
    for (std::uint64_t i = 0; i < lanes; ++i) {
      const std::uint64_t share = options.bytes / lanes + (i == 0 ? options.bytes % lanes : 0);
      threads.emplace_back([&, share] {
        tcp_send(introduction.port, pattern, share, options.message_bytes, zerocopy);
      });
    }
    for (auto& thread : threads) thread.join();
  };
  run_two_processes(options, true, target, source);
}

// ---- Siphon ------------------------------------------------------------------------------------

// One extent of any size, made of the pattern again and again. Reading only.
class PatternReader final : public ExtentReader {
 public:
  PatternReader(ExtentInfo info, std::span<const std::byte> pattern)
      : info_(std::move(info)), pattern_(pattern) {}
  const ExtentInfo& info() const override { return info_; }
  Status read(std::uint64_t offset_bytes, std::span<std::byte> out) override {
    while (!out.empty()) {
      const auto rest = pattern_.subspan(offset_bytes % pattern_.size());
      const auto piece = rest.first(std::min(rest.size(), out.size()));
      std::memcpy(out.data(), piece.data(), piece.size());
      out = out.subspan(piece.size());
      offset_bytes += piece.size();
    }
    return {};
  }

 private:
  const ExtentInfo info_;
  const std::span<const std::byte> pattern_;
};

class PatternStore final : public ExtentStore {
 public:
  PatternStore(std::span<const std::byte> pattern, std::uint64_t extent_bytes)
      : pattern_(pattern), extent_bytes_(extent_bytes) {}
  const Location& location() const override { return location_; }
  StoreLimits limits() const override { return {}; }
  Status check_ready(bool) override { return {}; }
  Result<ExtentInfo> stat(std::string_view name) override { return info_of(name); }
  Result<ExtentPage> list(std::string_view, std::size_t, Listing) override { return no(); }
  Result<std::unique_ptr<ExtentReader>> open(std::string_view name, std::span<std::byte>,
                                             bool) override {
    return std::make_unique<PatternReader>(info_of(name), pattern_);
  }
  Result<std::unique_ptr<ScratchExtent>> begin(std::string_view, const BeginOptions&) override {
    return no();
  }
  Status put_inline(std::string_view, const PrivateId&, std::span<const std::byte>,
                    const SealedHeader&) override {
    return no();
  }
  Status seal(std::string_view, const ExtentInfo&, std::uint64_t, std::span<const std::byte>,
              const SealedHeader&) override {
    return no();
  }
  Status trash(std::string_view, const ExtentInfo&) override { return no(); }
  Status collect(std::string_view, const PrivateId&) override { return no(); }
  Status purge(std::string_view, const PrivateId&, std::uint64_t) override { return no(); }
  Result<HeadRegister> inspect(std::string_view) override { return no(); }
  Status restore(std::string_view, const PrivateId&) override { return no(); }
  Result<std::size_t> purge_trash(std::string_view) override { return no(); }

 private:
  ExtentInfo info_of(std::string_view name) const {
    ExtentInfo info;
    info.name = name;
    info.state = ExtentState::kOpen;  // no sealed checksum to compare with
    info.header.extent_bytes = extent_bytes_;
    info.header.part_bytes = limits().part_bytes;
    return info;
  }
  static tl::unexpected<Error> no() { return fail(Code::kUnimplemented, "reading only"); }
  const std::span<const std::byte> pattern_;
  const std::uint64_t extent_bytes_;
  const Location location_;
};

class DiscardingSink final : public FrameSink {
 public:
  Result<bool> admit(const FrameHeader&) override { return true; }
  Status deliver(ReceivedFrame frame) override {
    bytes += frame.header.length_bytes;
    return {};
  }
  Status bad_frame(const FrameHeader&, std::uint32_t, std::uint32_t) override {
    return fail(Code::kDataLoss, "a frame arrived damaged");
  }
  std::atomic<std::uint64_t> bytes{0};
};

void siphon_target(const Options& options, const OtherEnd& source) {
  const Ticket ticket = Ticket::make({});
  auto listener = Listener::open("127.0.0.1", {});
  if (!listener) die(listener.error().message);
  Introduction introduction;
  introduction.port = listener->endpoint().port;
  std::memcpy(introduction.ticket_id, ticket.id.data(), ticket.id.size());
  std::memcpy(introduction.ticket_key, ticket.key.reveal().data(), 32);
  auto arena = ArenaMemory::allocate(32u << 20);
  if (!arena) die(arena.error().message);
  BufferPool pool(arena->span());
  ReceiveOptions receive;
  receive.limits = {1, static_cast<std::uint32_t>(options.message_bytes), options.bytes};
  receive.deadline = deadline_in(std::chrono::minutes(10));
  source.ready(introduction);
  auto lanes =
      listener->accept_lanes(ticket, static_cast<std::uint16_t>(options.lanes), receive.deadline);
  if (!lanes) die(lanes.error().message);
  DiscardingSink sink;
  LaneTimes times;
  std::vector<std::thread> threads;
  for (auto& lane : *lanes) {
    threads.emplace_back([&] {
      Status status = receive_lane(lane, pool, receive, sink, times);
      if (!status) die(status.error().message);
    });
  }
  for (auto& thread : threads) thread.join();
  if (sink.bytes != options.bytes) die("siphon: bytes are missing");
}

void siphon_source(const Options& options, std::span<const std::byte> pattern,
                   const Introduction& introduction) {
  PatternStore store(pattern, options.bytes);
  auto arena = ArenaMemory::allocate(32u << 20);
  if (!arena) die(arena.error().message);
  BufferPool pool(arena->span());
  StreamRequest request;
  request.extents = {"bench"};
  request.target = {"127.0.0.1", introduction.port};
  std::memcpy(request.ticket.id.data(), introduction.ticket_id, 16);
  request.ticket.key = Secret(std::as_bytes(std::span(introduction.ticket_key)));
  request.lanes = static_cast<std::uint16_t>(options.lanes);
  request.max_frame_bytes = static_cast<std::uint32_t>(options.message_bytes);
  request.deadline = deadline_in(std::chrono::minutes(10));
  StreamSender sender(store, pool, std::move(request), [](ExtentResult result) {
    if (!result.status) die(result.status.error().message);
  });
  if (Status status = sender.run(); !status) die(status.error().message);
}

void run_siphon(const Options& options, std::span<const std::byte> pattern) {
  run_two_processes(
      options, true, [&](const OtherEnd& source) { siphon_target(options, source); },
      [&](const Introduction& introduction) { siphon_source(options, pattern, introduction); });
}

}  // namespace
}  // namespace siphon::bench

int main(int argc, char** argv) {
  using namespace siphon::bench;
  const Options options = parse_options(argc, argv, "tcp, tcp_zerocopy, siphon");
  const std::vector<std::byte> pattern = make_pattern();
  if (options.mode == "tcp" || options.mode == "tcp_zerocopy") {
    run_tcp(options, pattern, options.mode == "tcp_zerocopy");
  } else if (options.mode == "siphon") {
    run_siphon(options, pattern);
  } else {
    die("no mode '" + options.mode + "'");
  }
  return 0;
}
