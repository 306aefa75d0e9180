// siphond by itself: over a folder, or over a cluster as an ordinary client. Its authority is a
// secret file or TLS client certificates (checked by the RPC layer), on loopback too.
#include <unistd.h>

#include <algorithm>

#include "adapters/posix/posix_store.h"
#include "adapters/rados/rados_cluster.h"
#include "adapters/rados/rados_provider.h"
#include "plugin/agent/backend.h"
#include "plugin/core/le.h"

namespace siphon::agent {

namespace {

// The RPC layer has seen a proof or a certificate already.
class ProvenPolicy final : public rpc::AccessPolicy {
 public:
  bool wants_grants() const override { return false; }
  std::optional<Nonce> find_nonce(std::span<const std::byte, 16>) override { return {}; }
  Status allow(Action, const Location&, const Authority&) override { return {}; }
  Status allow_any(const Authority&) override { return {}; }
  bool may_know_namespaces(const std::string&, const Authority&) override { return true; }
};

class Standalone : public Backend {
 public:
  Standalone(const Config& config, ArenaMemory memory)
      : peers_(config.peers), memory_(std::move(memory)) {
    std::array<std::byte, 8> nonce{};
    fill_random(nonce);
    boot_nonce_ = LeReader(nonce).get<std::uint64_t>();
  }
  rpc::AccessPolicy& policy() override { return policy_; }
  std::span<std::byte> send_memory() override {
    return memory_.span().first(memory_.span().size() / 2);
  }
  std::span<std::byte> receive_memory() override {
    return memory_.span().subspan(memory_.span().size() / 2);
  }
  std::uint64_t boot_nonce() const override { return boot_nonce_; }
  Status check_source(const TransferSpec& spec) override {
    auto endpoint = parse_endpoint(spec.source_address);
    if (!endpoint) return fail(std::move(endpoint).error());
    if (std::find(peers_.begin(), peers_.end(), endpoint->address) != peers_.end()) return {};
    return fail(Code::kPermissionDenied,
                "source address " + endpoint->address + " is not among this target's peers",
                Side::kTarget, "add it to peers.allow in the target's configuration");
  }

 private:
  const std::vector<std::string> peers_;
  ArenaMemory memory_;
  ProvenPolicy policy_;
  std::uint64_t boot_nonce_ = 0;
};

class FolderBackend final : public Standalone {
 public:
  FolderBackend(const Config& config, ArenaMemory memory, std::string dir,
                std::unique_ptr<PosixProvider> provider)
      : Standalone(config, std::move(memory)),
        dir_(std::move(dir)),
        provider_(std::move(provider)) {}
  const char* name() const override { return "posix"; }
  std::string device() const override { return "posix:" + dir_; }
  std::string default_journal() const override { return dir_ + "/.siphon/journal"; }
  StoreProvider& stores() override { return *provider_; }
  StoreIdentity store_identity() const override {
    auto store = provider_->open(Location{});
    return store ? (*store)->identity() : StoreIdentity{};
  }
  Status announce(const Endpoint&, bool) override { return {}; }

 private:
  const std::string dir_;
  std::unique_ptr<PosixProvider> provider_;
};

class ClusterBackend final : public Standalone {
 public:
  ClusterBackend(const Config& config, ArenaMemory memory, std::unique_ptr<RadosCluster> cluster)
      : Standalone(config, std::move(memory)),
        cluster_(std::move(cluster)),
        provider_(*cluster_, config.store) {}
  const char* name() const override { return "rados"; }
  std::string device() const override {
    return cluster_->name() + "@" + std::to_string(cluster_->instance_id());
  }
  // In the working directory, and of this cluster and client alone.
  std::string default_journal() const override {
    const auto fsid = cluster_->fsid();
    return "siphond." + cluster_->name() + "." + fsid.value_or("unknown") + ".journal";
  }
  StoreProvider& stores() override { return provider_; }
  Status announce(const Endpoint& control, bool) override {
    return cluster_->register_service(
        "siphon", cluster_->name(),
        {{"control", control.to_string()}, {"version", SIPHON_VERSION}});
  }

 private:
  std::unique_ptr<RadosCluster> cluster_;
  RadosProvider provider_;
};

}  // namespace

Result<std::unique_ptr<Backend>> make_standalone(const Invocation& invocation,
                                                 const Config& config) {
  if (config.server.secret_file.empty() && config.server.tls_cert_file.empty()) {
    return fail(Code::kFailedPrecondition,
                "a stand-alone siphond needs a secret_file or TLS files: anybody could use it",
                Side::kNone,
                "make one, where there is none yet: (umask 077; set -C; head -c 32 /dev/urandom > "
                "siphon.secret); then siphond --secret-file siphon.secret ...");
  }
  auto memory = ArenaMemory::allocate(config.arena_mib * kMiB);
  if (!memory) return fail(std::move(memory).error());
  if (invocation.store == "rados") {
    RadosOptions options;
    options.conf_path = invocation.ceph_conf;
    if (!invocation.ceph_cluster.empty()) options.cluster_name = invocation.ceph_cluster;
    if (!config.ceph_name.empty()) options.name = config.ceph_name;
    options.keyring = config.ceph_keyring.empty() ? invocation.ceph_keyring : config.ceph_keyring;
    options.osd_timeout = std::chrono::seconds(config.osd_timeout_seconds);
    auto cluster = RadosCluster::connect(options);
    if (!cluster) return fail(std::move(cluster).error());
    return std::unique_ptr<Backend>(
        std::make_unique<ClusterBackend>(config, std::move(*memory), std::move(*cluster)));
  }
  const std::string prefix = "posix:";
  if (invocation.store.rfind(prefix, 0) != 0 || invocation.store.size() == prefix.size()) {
    return fail(Code::kInvalidArgument,
                "--store '" + invocation.store + "': posix:DIR or rados is expected");
  }
  const std::string dir = invocation.store.substr(prefix.size());
  PosixOptions options;
  options.limits = config.store;
  options.daemon = true;
  auto provider = PosixProvider::create(dir, options);
  if (!provider) return fail(std::move(provider).error());
  return std::unique_ptr<Backend>(
      std::make_unique<FolderBackend>(config, std::move(*memory), dir, std::move(*provider)));
}

}  // namespace siphon::agent
