#include "plugin/rpc/source_caller.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <functional>
#include <optional>
#include <stop_token>
#include <utility>

#include "plugin/rpc/call_proof.h"
#include "plugin/rpc/connection.h"
#include "plugin/rpc/convert.h"

namespace siphon::rpc {

namespace {

class GrpcSourceCaller final : public SourceCaller {
 public:
  explicit GrpcSourceCaller(ClientOptions options) : options_(std::move(options)) {}

  StreamEnd stream(const StreamCall& call,
                   const std::function<void(const SourceReport&)>& on_report,
                   std::stop_token stop) override {
    StreamEnd end;
    auto connection =
        connect_to(call.source_address, options_, [&stop] { return stop.stop_requested(); });
    const auto failed = [&](Error why) -> Status {
      if (stop.stop_requested()) return fail(Code::kCancelled, "the second call was cancelled");
      return fail(std::move(why).with_suspect(Side::kSource));
    };
    if (!connection) {
      end.status = failed(std::move(connection).error());
      return end;
    }
    v1::StreamRequest request;
    encode(call, &request);
    std::optional<Sha256> source_key;
    if (call.source_key) source_key = call.source_key->key;
    if (const auto with = connection->mask_key(source_key)) {
      const Sha256 key = masked(call.ticket.key.reveal(), *with, kTicketMask, call.ticket.id);
      request.set_ticket_key(key.data(), key.size());
    }
    grpc::ClientContext context;
    if (Status proven = prove(*connection, context, call, request); !proven) {
      end.status = failed(std::move(proven).error());
      return end;
    }
    end.rpc_bytes += request.ByteSizeLong();
    // The source keeps to the deadline that it is told; this ends the call of one that does not.
    context.set_deadline(std::chrono::system_clock::now() + call.deadline + kDeadlineSlack);
    std::stop_callback hangup(stop, [&context] { context.TryCancel(); });
    auto reader = connection->stub->Stream(&context, request);
    v1::StreamResponse response;
    bool ended = false;
    while (reader->Read(&response)) {
      end.rpc_bytes += response.ByteSizeLong();
      if (response.has_final_status()) {
        ended = true;
        end.status = decode(response.final_status().problem());
        end.fallback_parts = response.final_status().fallback_parts();
      } else {
        on_report(decode(response));
      }
    }
    const grpc::Status status = reader->Finish();
    if (!ended && stop.stop_requested()) {
      end.status = fail(Code::kCancelled, "the second call was cancelled");
    } else if (!status.ok()) {
      end.status = fail(connection->error(status).with_suspect(Side::kSource));
    } else if (!ended) {
      end.status = fail(Code::kUnavailable, "the source ended the second call without a status",
                        Side::kSource);
    }
    return end;
  }

 private:
  // The source, too, shows that it knows the grant before it gets the ticket.
  static Status prove(const Connection& connection, grpc::ClientContext& context,
                      const StreamCall& call, const v1::StreamRequest& request) {
    if (!call.source_key) return connection.prove(context, "Stream", {}, request);
    const SourceKey& source = *call.source_key;
    return connection.prove(context, "Stream",
                            {{kReadProof, "grant_read", source.key_id, source.key}}, request,
                            source_scope(call.transfer_id, call.source));
  }

  const ClientOptions options_;
};

}  // namespace

std::unique_ptr<SourceCaller> make_source_caller(ClientOptions options) {
  return std::make_unique<GrpcSourceCaller>(std::move(options));
}

}  // namespace siphon::rpc
