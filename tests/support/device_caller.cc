// Calls a device's control port as any local user could, with whatever nonces it is given. For the
// tests of authority: it asks the cluster for nothing and has no key.
//
//   device_caller ADDRESS transfer ID SOURCE_ADDRESS SOURCE_POOL TARGET_POOL SOURCE TARGET R W
//   device_caller ADDRESS watch|cancel ID R W
//   device_caller ADDRESS list R W
//   device_caller ADDRESS verify POOL EXTENT R W
//
// R and W are the read and the write nonce, 32 hex digits or "-" for none. Prints one line, the
// outcome: "OK what" or "CODE sentence". Exit code 0 in any case but wrong usage.
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "plugin/rpc/client.h"

namespace {

using siphon::Nonce;
using siphon::Status;
using siphon::rpc::DeviceClient;

std::optional<Nonce> nonce_from(const std::string& hex) {
  Nonce nonce{};
  if (hex.size() != 2 * nonce.size()) return std::nullopt;
  for (std::size_t i = 0; i < nonce.size(); ++i) {
    nonce[i] = static_cast<std::byte>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
  }
  return nonce;
}

int say(const siphon::Error& error) {
  const std::string code(siphon::to_string(error.code));
  std::printf("%s %s\n", code.c_str(), error.message.c_str());
  return 0;
}

int say(const std::string& what) {
  std::printf("OK %s\n", what.c_str());
  return 0;
}

// What a summary says: its own error, or else the first extent's.
int say(const siphon::Result<siphon::Summary>& summary, const std::optional<siphon::Error>& first) {
  if (!summary) return say(summary.error());
  if (first) return say(*first);
  if (!summary->status) return say(summary->status.error());
  return say(std::to_string(summary->extents_done) + " extents");
}

int transfer_or_watch(DeviceClient& device, const std::vector<std::string>& words,
                      const siphon::Authority& authority) {
  std::optional<siphon::Error> first;
  auto on_event = [&](const siphon::rpc::TransferEvent& event) {
    const auto* outcome = std::get_if<siphon::ExtentOutcome>(&event);
    if (outcome != nullptr && !outcome->result && !first) first = outcome->result.error();
  };
  if (words[0] == "watch") {
    return say(device.watch(words[1], authority, on_event), first);
  }
  siphon::TransferSpec spec;
  spec.id = words[1];
  spec.source_address = words[2];
  spec.source.pool = words[3];
  spec.target.pool = words[4];
  spec.extents.push_back({words[5], words[6]});
  spec.authority = authority;
  return say(device.transfer(spec, on_event), first);
}

int verify(DeviceClient& device, const std::string& pool, const std::string& extent,
           const siphon::Authority& authority) {
  Status outcome;
  const Status status = device.verify(
      {pool, ""}, {extent}, authority, [](std::uint64_t) {},
      [&](const siphon::VerifyOutcome& o) { outcome = o.status; });
  if (!status) return say(status.error());
  return outcome ? say("verified") : say(outcome.error());
}

int call(DeviceClient& device, std::vector<std::string> words) {
  siphon::Authority authority;
  authority.write_nonce = nonce_from(words.back());
  words.pop_back();
  authority.read_nonce = nonce_from(words.back());
  words.pop_back();
  const std::string& verb = words.at(0);
  if ((verb == "transfer" && words.size() == 7) || (verb == "watch" && words.size() == 2)) {
    return transfer_or_watch(device, words, authority);
  }
  if (verb == "cancel" && words.size() == 2) {
    auto phase = device.cancel(words[1], authority);
    return phase ? say(std::string(siphon::to_string(*phase))) : say(phase.error());
  }
  if (verb == "list") {
    auto transfers = device.list(authority, /*finished=*/true);
    if (!transfers) return say(transfers.error());
    std::string text = std::to_string(transfers->transfers.size());
    for (const siphon::Location& place : transfers->elsewhere) text += " " + place.to_string();
    return say(text);
  }
  if (verb == "verify" && words.size() == 3) return verify(device, words[1], words[2], authority);
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() < 4) return 2;
  const std::string address = words.front();
  words.erase(words.begin());
  auto device = DeviceClient::connect(address, {});
  if (!device) return say(device.error());
  return call(**device, std::move(words));
}
