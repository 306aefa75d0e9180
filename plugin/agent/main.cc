// siphond: a device's daemon. Started by the OSD's plugin (--companion), or by hand over a folder
// (--store posix:DIR) or a cluster (--store rados).
//
// Exit codes: 0 ended by a signal or with its OSD; 64 usage; 78 configuration; 1 anything else.
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <optional>
#include <thread>

#include "adapters/posix/folder.h"
#include "plugin/agent/backend.h"
#include "plugin/agent/config.h"
#include "plugin/base/log.h"
#include "plugin/base/text.h"
#include "plugin/base/ticker.h"
#include "plugin/rpc/source_caller.h"
#include "plugin/transfer/leftovers.h"

namespace siphon::agent {

namespace {

constexpr int kExitUsage = 64;
constexpr int kExitConfig = 78;

int report(const Error& error, int exit_code) {
  std::cerr << "siphond: " << escaped(error.message) << "\n";
  if (!error.next_step.empty()) std::cerr << "next: " << escaped(error.next_step) << "\n";
  return exit_code;
}

// Before the first thread: die of our own limit rather than take the OSD's cgroup along. The hard
// limit stays, so that the configuration can still set another one.
void limit_memory(std::uint64_t data_limit_mib) {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // their shadow counts as data
  rlimit limit{};
  if (::getrlimit(RLIMIT_DATA, &limit) != 0) return;
  limit.rlim_cur = std::min<rlim_t>(data_limit_mib * kMiB, limit.rlim_max);
  (void)::setrlimit(RLIMIT_DATA, &limit);
#else
  (void)data_limit_mib;
#endif
}

// Every connection takes descriptors, an unproven peer's as well, and shells give 1024. (What uses
// select(2) could not live with more; nothing here does.)
void raise_descriptors() {
  constexpr rlim_t kEnough = 65536;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= kEnough) return;
  limit.rlim_cur = std::min(kEnough, limit.rlim_max);
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

void small_footprint() {
  ::mallopt(M_ARENA_MAX, 2);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 1u << 20);
  pthread_setattr_default_np(&attributes);
  pthread_attr_destroy(&attributes);
}

int show_settings(const Config& config, const std::vector<Setting>& settings,
                  const std::string& file) {
  std::cout << "configuration file: " << (file.empty() ? "none" : file) << "\n";
  for (const Setting& s : settings) {
    std::cout << s.key << " = \"" << s.value << "\"  # " << s.origin << ", " << s.environment
              << "\n";
  }
  if (Status s = rpc::check_server_options(config.server); !s)
    return report(s.error(), kExitConfig);
  std::cout << "configuration is good\n";
  return 0;
}

// The trash has a grace time of hours or days.
constexpr std::chrono::hours kTidyEvery{1};

Ticker tidy_now_and_then(Leftovers& leftovers, ExtentStore& folder) {
  return Ticker(kTidyEvery, [&leftovers, &folder, last = std::chrono::steady_clock::now()](
                                const std::stop_token& stop) mutable {
    const auto now = std::chrono::steady_clock::now();
    const auto since = std::chrono::duration_cast<std::chrono::milliseconds>(now - last);
    leftovers.tidy(folder, since, stop);
    last = now;
    return true;
  });
}

int run(const Invocation& invocation, Config config) {
  auto backend = invocation.companion ? make_companion(invocation, config)
                                      : make_standalone(invocation, config);
  if (!backend) return report(backend.error(), invocation.companion ? 1 : kExitConfig);
  const std::uint64_t started_unix_ms = now_unix_ms();
  config.transfer.device = (*backend)->device();
  const std::string journal_file =
      config.journal_file.empty() ? (*backend)->default_journal() : config.journal_file;
  auto journal = AttemptJournal::open(journal_file);
  if (!journal) {
    log::error("{}", journal.error().message);
    return report(journal.error(), 1);
  }
  const bool journal_in_memory = !outlasts_the_host(journal_file);
  auto from_before = (*journal)->all();  // before this process begins any of its own
  if (!from_before) return report(from_before.error(), 1);

  BufferPool send_pool((*backend)->send_memory(), (*backend)->is_held());
  BufferPool receive_pool((*backend)->receive_memory(), (*backend)->is_held());
  for (const std::span<std::byte> held : (*backend)->held()) {
    send_pool.withhold(held);
    receive_pool.withhold(held);
  }
  Throttle throttle(config.transfer.bytes_per_second);  // what goes out
  Throttle receive_throttle(config.transfer.bytes_per_second);
  DeviceCounters counters;
  rpc::ClientOptions client{config.server.secret_file, config.server.tls_ca_file,
                            config.server.tls_cert_file, config.server.tls_key_file};
  auto caller = rpc::make_source_caller(client);
  Leftovers leftovers((*backend)->stores(), **journal, std::move(*from_before));
  TransferManager manager({config.transfer, receive_pool, **journal, *caller, counters,
                           receive_throttle,
                           [&leftovers](Attempt a) { leftovers.add(std::move(a)); }});
  SourceService source(config.transfer, send_pool, throttle, counters);

  auto describe = [&] {
    DeviceDescription d;
    d.device = config.transfer.device;
    d.version = SIPHON_VERSION;
    d.adapter = (*backend)->name();
    d.store = (*backend)->store_identity();
    d.data_address = config.transfer.data_address;
    d.data_ports = std::to_string(config.transfer.data_ports.first) + "-" +
                   std::to_string(config.transfer.data_ports.last);
    d.boot_nonce = (*backend)->boot_nonce();
    d.region_bytes = send_pool.arena_bytes() + receive_pool.arena_bytes();
    d.bytes_in_flight = send_pool.in_use_bytes() + receive_pool.in_use_bytes();
    d.transfers_in = counters.transfers_in;
    d.transfers_out = counters.transfers_out;
    d.started_unix_ms = started_unix_ms;
    d.bytes_received = counters.bytes_received;
    d.bytes_sent = counters.bytes_sent;
    d.rejected_connections = counters.rejected_connections;
    d.fallback_parts = counters.fallback_parts;
    d.extents_published = counters.extents_published;
    d.open_data_port = counters.open_data_ports > 0;
    d.pid = static_cast<std::uint32_t>(::getpid());
    d.clock_unix_ms = now_unix_ms();
    d.journal_file = journal_file;
    d.journal_in_memory = journal_in_memory;
    return d;
  };
  auto server = rpc::DeviceServer::start(
      config.server,
      {manager, source, (*backend)->stores(), (*backend)->policy(),
       [&](const TransferSpec& spec) { return (*backend)->check_source(spec); }, describe});
  if (!server) return report(server.error(), kExitConfig);
  const Endpoint control = (*server)->endpoint();
  if (Status s = (*backend)->announce(control, !config.server.tls_cert_file.empty()); !s) {
    log::warn("not in the service map: {}", s.error().message);
  }
  log::info("{} {} ({}) serves on {}, data ports {} {}-{}", config.transfer.device, SIPHON_VERSION,
            (*backend)->name(), control.to_string(), config.transfer.data_address,
            config.transfer.data_ports.first, config.transfer.data_ports.last);
  if (!invocation.companion) {
    std::cout << config.transfer.device << " serves on " << control.to_string() << std::endl;
  }
  // A folder is small enough to be looked through; pools are not (docs/adr).
  auto folder = invocation.store.starts_with("posix:")
                    ? (*backend)->stores().open(Location{})
                    : Result<ExtentStore*>(fail(Code::kNotFound, "no folder"));
  std::jthread collector([&](std::stop_token stop) {
    if (folder) leftovers.find(**folder);
    leftovers.run(std::move(stop));
  });
  std::optional<Ticker> tidier;
  if (folder) tidier.emplace(tidy_now_and_then(leftovers, **folder));

  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  int received = 0;
  for (bool busy = false; received <= 0;) {
    const timespec tick{1, 0};
    received = ::sigtimedwait(&signals, nullptr, &tick);
    // What thousands of small extents leave in the allocator goes back when their transfers end.
    const bool now_busy = counters.transfers_in + counters.transfers_out > 0;
    if (busy && !now_busy) ::malloc_trim(0);
    busy = now_busy;
  }
  log::info("{} ends on signal {}", config.transfer.device, received);
  return 0;
}

int main(int argc, char** argv) {
  CLI::App app{
      "siphond: hands large extents from device to device, out of band and verified.\n\n"
      "Examples:\n"
      "  siphond --store posix:/srv/a --listen 127.0.0.1:7401 --secret-file a.secret\n"
      "  siphond --store rados --conf /etc/ceph/ceph.conf --secret-file a.secret\n"
      "  siphond --config /etc/siphon/siphond.toml --check-config"};
  app.set_version_flag("--version", std::string("siphond ") + SIPHON_VERSION);
  Invocation invocation;
  std::string config_file, listen, data_ports, secret_file, log_level;
  std::vector<std::string> flags;
  bool check_config = false;
  app.add_option("--store", invocation.store, "posix:DIR, or rados (as an ordinary client)");
  app.add_option("--config", config_file,
                 "TOML file (default: SIPHON_CONFIG, siphond.toml beside "
                 "the ceph.conf, /etc/siphon/siphond.toml)");
  app.add_flag("--check-config", check_config, "show every setting and its origin, then end");
  app.add_option("--set", flags, "KEY=VALUE: any setting, over file and environment");
  app.add_option("--listen", listen, "control.listen, ADDRESS:PORT or ADDRESS:FIRST-LAST");
  app.add_option("--data-ports", data_ports, "data.ports, FIRST-LAST");
  app.add_option("--secret-file", secret_file, "secret_file, mode 0600");
  app.add_option("--log-level", log_level, "log.level: debug, info, warn, error");
  app.add_option("-c,--conf", invocation.ceph_conf, "ceph.conf");
  app.add_option("--cluster", invocation.ceph_cluster, "cluster name");
  app.add_option("-k,--keyring", invocation.ceph_keyring, "keyring");
  app.add_flag("--companion", invocation.companion, "started by the OSD's plugin")->group("Plugin");
  app.add_option("--id", invocation.osd_id, "the OSD's id")->group("Plugin");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : kExitUsage;
  }
  if (!check_config && invocation.companion == !invocation.store.empty()) {
    return report({Code::kInvalidArgument, "--store posix:DIR or --store rados is needed",
                   Side::kNone, "siphond --help"},
                  kExitUsage);
  }
  for (auto [key, value] : {std::pair{"control.listen", &listen},
                            {"data.ports", &data_ports},
                            {"secret_file", &secret_file},
                            {"log.level", &log_level}}) {
    if (!value->empty()) flags.push_back(std::string(key) + "=" + *value);
  }
  if (config_file.empty()) config_file = default_config_file(invocation.ceph_conf);
  std::vector<Setting> settings;
  auto config = load_config(config_file, flags, &settings);
  if (!config) return report(config.error(), kExitConfig);
  if (invocation.companion) {
    insert_osd_id(*config, invocation.osd_id);
    if (Status s = check_companion(*config); !s) return report(s.error(), kExitConfig);
  }
  if (!config->log_file.empty()) {
    Status outside = posix::check_outside_of_stores(config->log_file);
    if (!outside) {
      return report(std::move(outside).error().with_context("log.file"), kExitConfig);
    }
  }
  limit_memory(config->data_limit_mib);
  if (check_config) return show_settings(*config, settings, config_file);
  if (Status s = rpc::check_server_options(config->server); !s) {
    return report(s.error(), kExitConfig);
  }
  log::setup(config->log_level, config->log_file);
  return run(invocation, std::move(*config));
}

}  // namespace

}  // namespace siphon::agent

int main(int argc, char** argv) {
  siphon::agent::limit_memory(1536);  // the configuration may set another limit, once it is read
  siphon::agent::raise_descriptors();
  siphon::agent::small_footprint();
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // every thread; main waits for the first two
  try {
    return siphon::agent::main(argc, argv);
  } catch (const std::exception& e) {
    std::cerr << "siphond: " << e.what() << "\n";
    return 1;
  }
}
