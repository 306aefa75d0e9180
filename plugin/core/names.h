// Bounds of the names that more than one room has to agree about.
#pragma once

#include <cstddef>

namespace siphon {

// Of a pool and of a namespace: what a Grant in the shared region holds.
inline constexpr std::size_t kMaxNamespaceBytes = 127;

}  // namespace siphon
