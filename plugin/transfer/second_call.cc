#include "plugin/transfer/second_call.h"

#include <span>

namespace siphon {

Sha256 ticket_binding(const StreamCall& call) {
  // The source knows its own address in one spelling only.
  const auto source = parse_endpoint(call.source_address);
  std::string text =
      "siphon.v1 ticket\n" + call.transfer_id + "\n" + std::to_string(call.attempt) + "\n" +
      call.target_device + "\n" + (source ? source->to_string() : call.source_address) + "\n" +
      call.source.to_string() + "\n" + call.data.to_string() + "\n" + std::to_string(call.lanes) +
      "\n" + std::to_string(call.max_frame_bytes) + "\n";
  for (const std::string& name : call.extents) text += name + "\n";
  return sha256(std::as_bytes(std::span(text)));
}

}  // namespace siphon
