// Every field of every message that has a value of its own in C++ survives the way there and back,
// whatever is in it. The messages are random, and filled by reflection: a field that is added to
// the contract and forgotten in convert.cc fails here.
#include "plugin/rpc/convert.h"

#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <string>

#include "plugin/format/extent_format.h"
#include "tests/support/test_random.h"

namespace siphon::rpc {
namespace {

namespace pb = google::protobuf;

class Filler {
 public:
  explicit Filler(test::TestRandom& random) : random_(random) {}

  void fill(pb::Message* message) {
    const pb::Descriptor* type = message->GetDescriptor();
    for (int i = 0; i < type->field_count(); ++i) {
      const pb::FieldDescriptor* field = type->field(i);
      if (left_out(*field)) continue;
      const std::uint64_t times = field->is_repeated() ? number(4) : 1;
      for (std::uint64_t t = 0; t < times; ++t) set(message, field);
    }
  }

 private:
  // Who may ask is not told back, and an outcome has a receipt or a problem.
  static bool left_out(const pb::FieldDescriptor& field) { return field.name() == "final_status"; }

  std::uint64_t number(std::uint64_t most) { return random_.number(1, most); }
  std::string bytes(std::size_t length) {
    std::string text;
    while (text.size() < length) text += static_cast<char>(number(255));
    return text;
  }
  std::string text_of(const pb::FieldDescriptor& field) {
    const std::string name(field.name());
    if (field.type() == pb::FieldDescriptor::TYPE_BYTES) {
      return bytes(name == "ticket_key" || name == "key" || name.find("digest") != std::string::npos
                       ? 32
                       : 16);
    }
    std::string text;
    const bool hex = name == "private_id" || name == "transfer_id";
    while (text.size() < 32) text += "0123456789abcdef"[number(15)];
    return hex ? text : "x-" + text;
  }
  // Within the bounds that decoding checks.
  std::uint64_t bounded(const pb::FieldDescriptor& field) {
    const std::string name(field.name());
    if (name == "code") return number(16);
    if (name == "lanes") return 1;  // as many as go with in_order
    if (name == "data_port" || name == "format_version") return number(65535);
    if (name == "max_frame_bytes") return 4096 + number(1 << 20);
    if (name == "idle_timeout_ms") return 100 + number(1'000'000);
    if (name == "deadline_ms") return number(1'000'000);
    return number(1u << 31);
  }

  void set(pb::Message* message, const pb::FieldDescriptor* field) {
    const pb::Reflection& reflection = *message->GetReflection();
    const bool many = field->is_repeated();
    switch (field->cpp_type()) {
      case pb::FieldDescriptor::CPPTYPE_MESSAGE:
        fill(many ? reflection.AddMessage(message, field)
                  : reflection.MutableMessage(message, field));
        break;
      case pb::FieldDescriptor::CPPTYPE_STRING:
        if (many) {
          reflection.AddString(message, field, text_of(*field));
        } else {
          reflection.SetString(message, field, text_of(*field));
        }
        break;
      case pb::FieldDescriptor::CPPTYPE_UINT32:
        reflection.SetUInt32(message, field, static_cast<std::uint32_t>(bounded(*field)));
        break;
      case pb::FieldDescriptor::CPPTYPE_UINT64:
        reflection.SetUInt64(message, field, bounded(*field));
        break;
      case pb::FieldDescriptor::CPPTYPE_INT64:
        reflection.SetInt64(message, field, static_cast<std::int64_t>(bounded(*field)));
        break;
      case pb::FieldDescriptor::CPPTYPE_BOOL:
        reflection.SetBool(message, field, true);
        break;
      case pb::FieldDescriptor::CPPTYPE_ENUM: {
        const int count = field->enum_type()->value_count();
        reflection.SetEnumValue(message, field,
                                static_cast<int>(number(static_cast<std::uint64_t>(count - 1))));
        break;
      }
      default:
        ADD_FAILURE() << field->full_name() << ": a type that this test does not know";
    }
  }

  test::TestRandom& random_;
};

template <typename Value>
const Value& value_of(const Value& value) {
  return value;
}
template <typename Value>
const Value& value_of(const Result<Value>& value) {
  EXPECT_TRUE(value) << value.error().message;
  return *value;
}

template <typename Message>
void expect_same(const Message& sent, const Message& back) {
  pb::util::MessageDifferencer differencer;
  differencer.set_message_field_comparison(pb::util::MessageDifferencer::EQUIVALENT);
  std::string differences;
  differencer.ReportDifferencesToString(&differences);
  EXPECT_TRUE(differencer.Compare(sent, back))
      << Message::descriptor()->name() << ": " << differences;
}

template <typename Message>
void expect_round_trip(const Message& sent) {
  const auto decoded = decode(sent);
  Message back;
  encode(value_of(decoded), &back);
  expect_same(sent, back);
}

template <typename Message>
class ConvertTest : public ::testing::Test {};
using Messages =
    ::testing::Types<v1::Place, v1::SealedHeader, v1::TransferRequest, v1::Progress, v1::Summary,
                     v1::TransferInfo, v1::StreamRequest, v1::VerifyResult, v1::DescribeResponse>;
TYPED_TEST_SUITE(ConvertTest, Messages);

TYPED_TEST(ConvertTest, EveryFieldSurvives) {
  test::TestRandom random;
  SCOPED_TRACE(random.trace());
  for (int i = 0; i < 200 && !this->HasFailure(); ++i) {
    TypeParam sent;
    Filler(random).fill(&sent);
    expect_round_trip(sent);
  }
}

TEST(ConvertChoiceTest, AnOutcomeIsAReceiptOrAProblem) {
  test::TestRandom random;
  SCOPED_TRACE(random.trace());
  for (int i = 0; i < 200 && !HasFailure(); ++i) {
    v1::ExtentOutcome sent;
    Filler(random).fill(&sent);
    v1::ExtentOutcome receipt = sent, problem = sent;
    receipt.clear_problem();
    problem.clear_receipt();
    expect_round_trip(receipt);
    expect_round_trip(problem);
  }
}

TEST(ConvertChoiceTest, AReportHoldsClaimsAndProblems) {
  test::TestRandom random;
  SCOPED_TRACE(random.trace());
  for (int i = 0; i < 200 && !HasFailure(); ++i) {
    v1::StreamResponse sent;
    Filler(random).fill(&sent);
    for (v1::StreamExtentResult& one : *sent.mutable_results()) {
      if (random.number(0, 1) == 0) {
        one.clear_problem();
      } else {
        v1::StreamExtentResult failed;
        failed.set_index(one.index());
        *failed.mutable_problem() = one.problem();
        one = failed;
      }
    }
    expect_round_trip(sent);
  }
}

// What an answer is made of: each part has its own conversion, and none is left out.
void take_apart(const v1::TransferResponse& sent, v1::TransferResponse* back) {
  back->set_transfer_id(sent.transfer_id());
  encode(decode(sent.progress()), back->mutable_progress());
  for (const auto& outcome : sent.outcomes()) encode(decode(outcome), back->add_outcomes());
  encode(decode(sent.summary()), back->mutable_summary());
}
void take_apart(const v1::WatchResponse& sent, v1::WatchResponse* back) {
  take_apart(sent.update(), back->mutable_update());
}
void take_apart(const v1::ListResponse& sent, v1::ListResponse* back) {
  for (const auto& info : sent.transfers()) encode(decode(info), back->add_transfers());
  for (const auto& place : sent.elsewhere()) encode(decode(place), back->add_elsewhere());
}
void take_apart(const v1::VerifyResponse& sent, v1::VerifyResponse* back) {
  back->set_done_bytes(sent.done_bytes());
  encode(decode(sent.result()), back->mutable_result());
}

// An outcome is a receipt or a problem.
void choose(v1::TransferResponse* sent) {
  for (int i = 0; i < sent->outcomes_size(); ++i) {
    auto* outcome = sent->mutable_outcomes(i);
    i % 2 == 0 ? outcome->clear_problem() : outcome->clear_receipt();
  }
}
void choose(v1::WatchResponse* sent) { choose(sent->mutable_update()); }
void choose(pb::Message*) {}

template <typename Message>
class AnswerTest : public ::testing::Test {};
using Answers =
    ::testing::Types<v1::TransferResponse, v1::WatchResponse, v1::ListResponse, v1::VerifyResponse>;
TYPED_TEST_SUITE(AnswerTest, Answers);

TYPED_TEST(AnswerTest, EveryFieldSurvivesInItsPart) {
  test::TestRandom random;
  SCOPED_TRACE(random.trace());
  for (int i = 0; i < 50 && !this->HasFailure(); ++i) {
    TypeParam sent, back;
    Filler(random).fill(&sent);
    choose(&sent);
    take_apart(sent, &back);
    expect_same(sent, back);
  }
}

TEST(ConvertChoiceTest, AFormatVersionBeyondItsFieldStaysUnknown) {
  v1::SealedHeader sent;
  sent.set_extent_bytes(sealed_extent_bytes(0, 0));
  for (const std::uint32_t version : {65537u, 65538u, ~0u}) {
    sent.set_format_version(version);
    sent.set_content_digest(version == 65538u ? std::string(32, 'd') : "");
    EXPECT_FALSE(check_sealed_header(decode(sent))) << version;
  }
  sent.set_format_version(1);
  sent.clear_content_digest();
  EXPECT_TRUE(check_sealed_header(decode(sent)));
}

TEST(ConvertChoiceTest, APeersUnknownStatusIsUnknown) {
  for (const int code : {-1, 17, 31}) {
    const Error error = from_grpc(grpc::Status(static_cast<grpc::StatusCode>(code), "x"), "a:1");
    EXPECT_EQ(error.code, Code::kUnknown) << code;
    const Error again = from_grpc(to_grpc(error), "a:1");
    EXPECT_EQ(again.message, error.message);
  }
}

TEST(ConvertChoiceTest, WhoWentAwayIsAskedByTheNextStep) {
  const Error error = from_grpc(grpc::Status(grpc::StatusCode::UNAVAILABLE, "x"), "a:1");
  EXPECT_NE(error.next_step.find("siphon daemons a:1/ "), std::string::npos) << error.next_step;
}

TEST(ConvertChoiceTest, AMalformedMessageWritesNothingToStderr) {
  v1::TransferRequest request;
  testing::internal::CaptureStderr();
  EXPECT_FALSE(request.ParseFromString("\x0a\x01\xff"));  // transfer_id: not UTF-8
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

// What a source says is kept for each extent, told to everybody who asks, and written down.
TEST(ConvertChoiceTest, APeersWordsAreBounded) {
  v1::StreamResponse sent;
  sent.set_source_device(std::string(1 << 20, 'd'));
  auto* problem = sent.add_results()->mutable_problem();
  problem->set_code(14);
  problem->set_message(std::string(1 << 20, 'm'));
  problem->set_next_step(std::string(1 << 20, 'n'));
  const SourceReport got = decode(sent);
  EXPECT_EQ(got.source_device, std::string(256, 'd'));
  sent.set_source_device(std::string(255, 'd') + "\u00fc and more");  // 2 bytes, cut between them
  EXPECT_EQ(decode(sent).source_device, std::string(255, 'd'));
  ASSERT_FALSE(got.extents.at(0).claim);
  EXPECT_EQ(got.extents[0].claim.error().message, std::string(4096, 'm'));
  EXPECT_EQ(got.extents[0].claim.error().next_step, std::string(4096, 'n'));
  v1::StreamRequest request;
  test::TestRandom random;
  SCOPED_TRACE(random.trace());
  Filler(random).fill(&request);
  EXPECT_TRUE(decode(request));
  request.mutable_target_store()->set_id(std::string(1 << 20, 'x'));
  EXPECT_FALSE(decode(request));
}

TEST(ConvertChoiceTest, ManyFieldsAreRefusedBeforeTheyAreDecoded) {
  auto few = [](const std::string& bytes, std::size_t most) {
    pb::io::ArrayInputStream in(bytes.data(), static_cast<int>(bytes.size()));
    return has_few_fields(in, *v1::TransferRequest::descriptor(), most);
  };
  v1::TransferRequest request;
  for (int i = 0; i < 10; ++i) request.add_extents()->set_source_extent("name");
  EXPECT_TRUE(few(request.SerializeAsString(), 20));
  EXPECT_FALSE(few(request.SerializeAsString(), 19));
  EXPECT_TRUE(few("", 0));
  std::string empty_messages;
  for (int i = 0; i < 100000; ++i) empty_messages += std::string("\x2a\x00", 2);
  EXPECT_FALSE(few(empty_messages, 40064));
  EXPECT_FALSE(few("\x2a\x05x", 10)) << "cut short";
  EXPECT_FALSE(few("\xff\xff\xff\xff\xff\xff", 10)) << "no tag";
}

TEST(ConvertChoiceTest, FieldsOfMessagesWithinAMessageAreCountedToo) {
  auto few = [](const std::string& bytes) {
    pb::io::ArrayInputStream in(bytes.data(), static_cast<int>(bytes.size()));
    return has_few_fields(in, *v1::TransferRequest::descriptor(), 1000);
  };
  auto varint = [](std::size_t value) {
    std::string out;
    for (; value >= 128; value >>= 7) out += static_cast<char>(value % 128 | 128);
    return out + static_cast<char>(value);
  };
  auto within = [&](const std::string& bytes) { return "\x2a" + varint(bytes.size()) + bytes; };
  std::string unknown;  // of the number 15, and small
  for (int i = 0; i < 100; ++i) unknown += std::string("\x78\x01", 2);
  EXPECT_TRUE(few(within(unknown)));
  std::string many;
  for (int i = 0; i < 11; ++i) many += within(unknown);
  EXPECT_FALSE(few(many));
  // A group is one field outside and may hold any number.
  EXPECT_FALSE(few("\x7b\x7c"));
  EXPECT_FALSE(few(within("\x7b\x7c")));
  // A string is one field, whatever its bytes.
  EXPECT_TRUE(few("\x0a" + varint(unknown.size() * 20) + std::string(unknown.size() * 20, 'x')));
}

}  // namespace
}  // namespace siphon::rpc
