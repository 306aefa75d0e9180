// Between the wire's messages and the plain types. Private to plugin/rpc (it names .pb.h).
// Decoders check shapes (lengths of nonces and ids), never trust sizes. Pure.
#pragma once

#include <google/protobuf/io/zero_copy_stream.h>
#include <grpcpp/support/status.h>

#include "plugin/transfer/second_call.h"
#include "plugin/transfer/types.h"
#include "siphon/v1/siphon.pb.h"

namespace siphon::rpc {

void encode(const Error& in, v1::Problem* out);
// A Problem with code 0 is OK.
Status decode(const v1::Problem& in);
inline void encode(const Status& in, v1::Problem* out) {
  if (!in) encode(in.error(), out);
}

void encode(const Location& in, v1::Place* out);
Location decode(const v1::Place& in);
void encode(const StoreIdentity& in, v1::StoreIdentity* out);
StoreIdentity decode(const v1::StoreIdentity& in);
void encode(const SealedHeader& in, v1::SealedHeader* out);
SealedHeader decode(const v1::SealedHeader& in);

void encode(const TransferSpec& in, v1::TransferRequest* out);
Result<TransferSpec> decode(const v1::TransferRequest& in);
void encode(const StreamCall& in, v1::StreamRequest* out);
Result<StreamCall> decode(const v1::StreamRequest& in);
void encode(const SourceReport& in, v1::StreamResponse* out);
SourceReport decode(const v1::StreamResponse& in);

void encode(const Progress& in, v1::Progress* out);
Progress decode(const v1::Progress& in);
void encode(const ExtentOutcome& in, v1::ExtentOutcome* out);
ExtentOutcome decode(const v1::ExtentOutcome& in);
void encode(const Summary& in, v1::Summary* out);
Summary decode(const v1::Summary& in);
void encode(const TransferInfo& in, v1::TransferInfo* out);
TransferInfo decode(const v1::TransferInfo& in);
void encode(const VerifyOutcome& in, v1::VerifyResult* out);
VerifyOutcome decode(const v1::VerifyResult& in);
void encode(const DeviceDescription& in, v1::DescribeResponse* out);
DeviceDescription decode(const v1::DescribeResponse& in);

// Whether a message of this type, with all messages within it, has no more than `most` fields, no
// groups, and ends well, before it is decoded: two bytes on the wire may become a hundred in
// memory. Copies nothing. No type may contain itself.
bool has_few_fields(google::protobuf::io::ZeroCopyInputStream& in,
                    const google::protobuf::Descriptor& type, std::size_t most);

// An Error as the status of a call: its code and sentence, and the whole Problem as the status's
// binary details, so that suspect and next step survive.
grpc::Status to_grpc(const Error& error);
Error from_grpc(const grpc::Status& status, const std::string& address);

}  // namespace siphon::rpc
