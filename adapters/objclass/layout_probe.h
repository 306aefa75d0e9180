// The companion's part in showing that the class reads its OSD's operations right: it says what a
// call runs on, and the class compares (docs/adr/2026-11-28-verified-layouts.md).
#pragma once

#include "adapters/objclass/exchange_client.h"
#include "adapters/rados/rados_cluster.h"

namespace siphon {

// Makes the probe that a grant is waiting for, if one is. False: no more are needed. To be called
// over and over, by one thread; blocks for an operation at most.
bool probe_layout_if_wanted(ExchangeClient& exchange, RadosCluster& cluster);

}  // namespace siphon
