#include "adapters/objclass/layout_probe.h"

#include <array>

#include "plugin/base/log.h"
#include "plugin/base/types.h"

namespace siphon {

using exchange::LayoutState;

bool probe_layout_if_wanted(ExchangeClient& exchange, RadosCluster& cluster) {
  if (exchange.layout() != LayoutState::kUnproven) return false;
  const auto wanted = exchange.wanted_probe();
  if (!wanted) return true;
  std::array<std::byte, 16> ticket;
  fill_random(ticket);
  exchange.announce_probe(ticket);
  const Status probed = cluster.probe_layout(wanted->pool_id, wanted->placement_group, ticket);
  exchange.withdraw_probe();
  if (exchange.layout() != LayoutState::kUnproven) {
    if (!probed) log::error("{}", probed.error().message);
    return false;
  }
  // The hint was wrong, or the primary has moved: the next grant gives another. Anybody who may ask
  // for a grant can give wrong ones.
  if (!probed) log::debug("{}", probed.error().message);
  return true;
}

}  // namespace siphon
