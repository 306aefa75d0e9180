#include <nlohmann/json.hpp>
#include <string>

#include "adapters/rados/rados_internal.h"
#include "adapters/rados/rados_store.h"

namespace siphon {

Status check_pool_writable(RadosCluster& cluster, const std::string& pool) try {
  librados::bufferlist out;
  std::string ignored;
  const int result = cluster.impl().rados.mon_command(R"({"prefix": "osd dump", "format": "json"})",
                                                      {}, &out, &ignored);
  if (result == -ETIMEDOUT) {
    return fail(rados_internal::to_error(result, "ask the mons about pool " + pool));
  }
  if (result < 0) return {};
  const auto dump = nlohmann::json::parse(out.c_str(), out.c_str() + out.length());
  const std::string flags = dump.value("flags", "") + ",";
  if (flags.find("pausewr,") != std::string::npos) {
    return fail(Code::kFailedPrecondition, "the cluster is paused for writing", Side::kTarget,
                "ceph osd unpause");
  }
  for (const auto& entry : dump.at("pools")) {
    if (entry.value("pool_name", "") != pool) continue;
    const std::string pool_flags = entry.value("flags_names", "") + ",";
    if (pool_flags.find("full,") != std::string::npos ||
        pool_flags.find("full_quota,") != std::string::npos) {
      return fail(
          Code::kResourceExhausted, "pool " + pool + " is full", Side::kTarget,
          "free some room or raise the quota: ceph df detail; ceph osd pool get-quota " + pool);
    }
  }
  return {};
} catch (const std::exception&) {
  return {};  // an answer we cannot read tells nothing
}

}  // namespace siphon
