// A receipt as the journal keeps it: little-endian numbers, texts behind their lengths. Local to
// one device, never sent; a record of a version that is not known is none.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "plugin/transfer/types.h"

namespace siphon {

std::string encode_receipt(const Receipt& receipt);
// nullopt unless it is a whole record of this version. Any input is safe.
std::optional<Receipt> decode_receipt(std::string_view record);

}  // namespace siphon
