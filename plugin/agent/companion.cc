// The companion of an OSD: the exchange's region for memory, the OSD's own key for the cluster,
// grants for authority.
#include <arpa/inet.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <map>
#include <optional>
#include <thread>

#include "adapters/objclass/exchange_client.h"
#include "adapters/objclass/layout_probe.h"
#include "adapters/objclass/objclass_provider.h"
#include "adapters/rados/rados_cluster.h"
#include "plugin/agent/backend.h"
#include "plugin/base/log.h"
#include "plugin/base/ticker.h"
#include "plugin/transfer/journal.h"

namespace siphon::agent {

namespace {

using exchange::Right;

Result<exchange::Hello> make_hello(const Endpoint& control, bool tls, int osd_id,
                                   std::uint64_t boot_nonce) {
  exchange::Hello hello;
  hello.control_port = control.port;
  hello.osd_id = osd_id;
  hello.flags = tls ? exchange::Hello::kFlagTls : 0;
  hello.boot_nonce = boot_nonce;
  if (inet_pton(AF_INET, control.address.c_str(), hello.address.data()) == 1) {
    hello.address_family = 4;
  } else if (inet_pton(AF_INET6, control.address.c_str(), hello.address.data()) == 1) {
    hello.address_family = 6;
  } else {
    return fail(Code::kInvalidArgument, "control address " + control.address + " is not numeric");
  }
  return hello;
}

std::string hello_address(const exchange::Hello& hello) {
  char text[INET6_ADDRSTRLEN] = "";
  inet_ntop(hello.address_family == 4 ? AF_INET : AF_INET6, hello.address.data(), text,
            sizeof(text));
  return Endpoint{text, hello.control_port}.to_string();
}

// Acts only on what the class has written into the region.
class GrantPolicy final : public rpc::AccessPolicy {
 public:
  GrantPolicy(ExchangeClient& exchange, RadosCluster& cluster, std::string device)
      : exchange_(exchange), cluster_(cluster), device_(std::move(device)) {}

  bool wants_grants() const override { return true; }

  std::optional<Nonce> find_nonce(std::span<const std::byte, 16> key_id) override {
    return exchange_.find_nonce(key_id);
  }

  Status allow(Action action, const Location& location, const Authority& authority) override {
    const bool read = action == Action::kRead;
    const char* method = read ? "grant_read" : "grant_write";
    const auto& nonce = read ? authority.read_nonce : authority.write_nonce;
    const Right right = read ? Right::kRead : Right::kWrite;
    // Whoever shows no grant of this device's reaches no mon, and is told the same of every pool,
    // whether there is one or not.
    const bool known = nonce && !exchange_.find_grants(*nonce).empty();
    for (const bool refreshed : {false, true}) {
      if (!known) break;
      // The pool may have been removed and made again since this client last heard of it.
      if (refreshed) SIPHON_TRY(cluster_.refresh());
      auto pool = cluster_.pool_id(location);
      if (!pool) {
        // What became of a pool is told to who has a grant of it.
        const bool has = exchange_.allows(*nonce, right, location.pool_id, location.nspace);
        const bool gone =
            pool.error().code == Code::kNotFound || pool.error().reason == Reason::kPoolChanged;
        if (gone && !has) break;
        return fail(std::move(pool).error());
      }
      if (exchange_.allows(*nonce, right, *pool, location.nspace)) return {};
    }
    Error error{Code::kPermissionDenied,
                device_ + " holds no valid " + method + " for " + location.to_string() +
                    " from this requester",
                read ? Side::kSource : Side::kTarget,
                std::string("ceph auth caps CLIENT osd 'allow class siphon hello, allow class "
                            "siphon ") +
                    method + " pool=" + location.pool + ", ...'"};
    if (nonce && !known) {
      // It was left elsewhere, has expired, or the OSD has been started again since.
      error.reason = Reason::kGrantUnknown;
      error.next_step = "run the command again: it looks the devices up and asks for grants afresh";
    }
    return fail(std::move(error));
  }

  Status allow_any(const Authority& authority) override {
    for (const auto& nonce : {authority.read_nonce, authority.write_nonce}) {
      if (nonce && !exchange_.find_grants(*nonce).empty()) return {};
    }
    return fail({Code::kPermissionDenied, device_ + " holds no grant of this requester",
                 Side::kRequester, "run the command again: it asks for grants afresh",
                 Reason::kGrantUnknown});
  }

  // The clients that asked for its grants, and the pools that these are of. A key may connect as
  // many clients, but has no more pools than it has caps for; and one of a pool's clients leaves
  // some of the pool's share to the others.
  rpc::Payers payers(const Authority& authority) override {
    std::map<std::string, std::size_t> weights;
    for (const auto& nonce : {authority.read_nonce, authority.write_nonce}) {
      if (!nonce) continue;
      for (const ExchangeGrant& grant : exchange_.find_grants(*nonce)) {
        weights["pool " + std::to_string(grant.pool_id)] = 1;
        if (grant.client != 0) weights["client " + std::to_string(grant.client)] = 2;
      }
    }
    rpc::Payers payers;
    for (const auto& [name, weight] : weights) payers.push_back({name, weight});
    // Expired since it was proven.
    if (payers.empty()) payers.push_back({"no grant", 1});
    return payers;
  }

  bool may_know_namespaces(const std::string& name, const Authority& authority) override {
    const auto pool = cluster_.pool_id(name);
    if (!pool) return false;
    for (const auto& nonce : {authority.read_nonce, authority.write_nonce}) {
      if (!nonce) continue;
      for (const ExchangeGrant& grant : exchange_.find_grants(*nonce)) {
        if (grant.pool_id == *pool && grant.nspace.empty()) return true;
      }
    }
    return false;
  }

 private:
  ExchangeClient& exchange_;
  RadosCluster& cluster_;
  const std::string device_;
};

// How often it is looked whether a grant waits for the probe, until there has been one.
constexpr std::chrono::milliseconds kProbeLook{50};

class Companion final : public Backend {
 public:
  Companion(const Invocation& invocation, const Config& config,
            std::unique_ptr<ExchangeClient> exchange, std::unique_ptr<RadosCluster> cluster)
      : osd_id_(std::atoi(invocation.osd_id.c_str())),
        ceph_cluster_(invocation.ceph_cluster.empty() ? "ceph" : invocation.ceph_cluster),
        exchange_(std::move(exchange)),
        cluster_(std::move(cluster)),
        provider_(*cluster_, *exchange_, config.store),
        policy_(*exchange_, *cluster_, device()) {}

  const char* name() const override { return exchange_->bulk_methods() ? "objclass" : "rados"; }
  std::string device() const override { return "osd." + std::to_string(osd_id_); }
  // In the OSD's folder, where that outlives the host. Under ceph-volume it is a tmpfs, filled anew
  // at each start: then in Ceph's own folder, by cluster. A client with a name of its own is not
  // told which folder that is: Ceph's default.
  std::string default_journal() const override {
    const std::string osd = ceph_cluster_ + "-" + std::to_string(osd_id_);
    std::string data = "/var/lib/ceph/osd/" + osd;
    if (cluster_->name() == device()) {
      auto setting = cluster_->setting("osd_data");
      if (setting && !setting->empty()) data = *setting;
    }
    if (outlasts_the_host(data)) return data + "/siphon.journal";
    auto fsid = cluster_->fsid();
    return "/var/lib/ceph/siphon/" + (fsid ? *fsid : ceph_cluster_) + "/" + osd + ".journal";
  }
  StoreProvider& stores() override { return provider_; }
  rpc::AccessPolicy& policy() override { return policy_; }
  std::span<std::byte> send_memory() override { return exchange_->send_half(); }
  std::span<std::byte> receive_memory() override { return exchange_->receive_half(); }
  BufferPool::IsHeld is_held() override {
    return [this](std::span<const std::byte> bytes) { return exchange_->is_held(bytes); };
  }
  std::vector<std::span<std::byte>> held() override { return exchange_->held(); }
  std::uint64_t boot_nonce() const override { return exchange_->boot_nonce(); }

  // The cluster says where the extents live; what the requester says must agree.
  Status check_source(const TransferSpec& spec) override {
    auto hello = cluster_->hello(spec.source, spec.extents.front().source);
    if (!hello) {
      return fail(std::move(hello)
                      .error()
                      .with_context("source " + spec.source.to_string())
                      .with_suspect(Side::kSource));
    }
    const std::string actual = hello_address(*hello);
    if (actual == spec.source_address) return {};
    return fail(Code::kAborted,
                "extent " + spec.extents.front().source + " of " + spec.source.to_string() +
                    " is now at osd." + std::to_string(hello->osd_id) + " (" + actual +
                    "), not at " + spec.source_address,
                Side::kSource, "run the copy again: it looks the devices up afresh");
  }

  Status announce(const Endpoint& control, bool tls) override {
    auto prober = Ticker::start(Side::kNone, kProbeLook,
                                [this] { return probe_layout_if_wanted(*exchange_, *cluster_); });
    if (!prober) return fail(std::move(prober).error());
    prober_ = std::move(*prober);
    auto hello = make_hello(control, tls, osd_id_, exchange_->boot_nonce());
    if (!hello) return fail(std::move(hello).error());
    exchange_->publish_hello(*hello);
    return cluster_->register_service("siphon", device(),
                                      {{"control", control.to_string()},
                                       {"version", SIPHON_VERSION},
                                       {"pid", std::to_string(::getpid())}});
  }

 private:
  const int osd_id_;
  const std::string ceph_cluster_;
  std::unique_ptr<ExchangeClient> exchange_;
  std::unique_ptr<RadosCluster> cluster_;
  ObjclassProvider provider_;
  GrantPolicy policy_;
  std::optional<Ticker> prober_;
};

// The OSD closes its end of the socket pair when it goes, however it goes.
void exit_with_the_osd() {
  std::thread([] {
    char byte = 0;
    for (;;) {
      const ssize_t got = ::read(exchange::kSocketFd, &byte, 1);
      if (got == 0 || (got < 0 && errno != EINTR)) ::_exit(0);
    }
  }).detach();
}

}  // namespace

Result<std::unique_ptr<Backend>> make_companion(const Invocation& invocation,
                                                const Config& config) {
  exit_with_the_osd();
  auto exchange = ExchangeClient::map(exchange::kRegionFd);
  if (!exchange) return fail(std::move(exchange).error());
  RadosOptions options;
  options.conf_path = invocation.ceph_conf;
  if (!invocation.ceph_cluster.empty()) options.cluster_name = invocation.ceph_cluster;
  options.name = config.ceph_name.empty() ? "osd." + invocation.osd_id : config.ceph_name;
  options.keyring = config.ceph_keyring.empty() ? invocation.ceph_keyring : config.ceph_keyring;
  options.osd_timeout = std::chrono::seconds(config.osd_timeout_seconds);
  for (auto pause = std::chrono::milliseconds(200);;
       pause = std::min(pause * 2, std::chrono::milliseconds(5000))) {
    auto cluster = RadosCluster::connect(options);
    if (cluster) {
      return std::unique_ptr<Backend>(std::make_unique<Companion>(
          invocation, config, std::move(*exchange), std::move(*cluster)));
    }
    // The OSD's end of file is what ends this loop when there is no point in it.
    log::warn("cannot connect as {} yet: {}", options.name, cluster.error().message);
    std::this_thread::sleep_for(pause);
  }
}

}  // namespace siphon::agent
