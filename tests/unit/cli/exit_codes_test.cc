// What the exit status says.
#include "plugin/cli/exit_codes.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace siphon::cli {
namespace {

TEST(CliExitCodes, OfSingleErrors) {
  EXPECT_EQ(exit_for(Code::kOk), Exit::kOk);
  EXPECT_EQ(exit_for(Code::kInvalidArgument), Exit::kUsage);
  EXPECT_EQ(exit_for(Code::kNotFound), Exit::kNotFound);
  EXPECT_EQ(exit_for(Code::kPermissionDenied), Exit::kPermission);
  EXPECT_EQ(exit_for(Code::kUnauthenticated), Exit::kPermission);
  EXPECT_EQ(exit_for(Code::kResourceExhausted), Exit::kLimit);
  EXPECT_EQ(exit_for(Code::kDataLoss), Exit::kFatal);
  EXPECT_EQ(exit_for(Code::kAlreadyExists), Exit::kFatal);
}

TEST(CliExitCodes, TemporaryIsExactlyWhatRetryHelps) {
  for (int i = 0; i <= 16; ++i) {
    const Code code = static_cast<Code>(i);
    EXPECT_EQ(exit_for(code) == Exit::kTemporary, is_retryable(code)) << to_string(code);
  }
}

TEST(CliExitCodes, OfMany) {
  EXPECT_EQ(exit_for(Tally{}), Exit::kOk);
  EXPECT_EQ(exit_for(Tally{3, 0, 0, Exit::kOk}), Exit::kOk);
  EXPECT_EQ(exit_for(Tally{3, 2, 0, Exit::kOk}), Exit::kOk);
  EXPECT_EQ(exit_for(Tally{0, 2, 0, Exit::kOk}), Exit::kNothingToDo);
  EXPECT_EQ(exit_for(Tally{3, 0, 1, Exit::kFatal}), Exit::kPartial);
  EXPECT_EQ(exit_for(Tally{0, 3, 1, Exit::kFatal}), Exit::kPartial);
  EXPECT_EQ(exit_for(Tally{0, 0, 2, Exit::kNotFound}), Exit::kNotFound);
}

}  // namespace
TEST(CliExitCodes, AReasonWithACodeOfItsOwnComesFirst) {
  const auto exit_of = [](Code code, Reason reason) {
    return exit_for(Error{code, "", Side::kNone, "", reason});
  };
  EXPECT_EQ(exit_of(Code::kInvalidArgument, Reason::kSameThing), Exit::kUsage);
  EXPECT_EQ(exit_of(Code::kFailedPrecondition, Reason::kPoolChanged), Exit::kFatal);
  EXPECT_EQ(exit_of(Code::kFailedPrecondition, Reason::kDegraded), Exit::kTemporary);
  EXPECT_EQ(exit_of(Code::kOutOfRange, Reason::kClusterLimit), Exit::kNotFit);
  EXPECT_EQ(exit_of(Code::kFailedPrecondition, Reason::kNoPlugin), Exit::kNotFit);
  EXPECT_EQ(exit_of(Code::kFailedPrecondition, Reason::kLayout), Exit::kNotFit);
  EXPECT_EQ(exit_of(Code::kUnavailable, Reason::kBusy), Exit::kTemporary);
  EXPECT_EQ(exit_of(Code::kNotFound, Reason::kNone), Exit::kNotFound);
}

TEST(CliExitCodes, WhatDidNotAnswerOrBrokeIsNoRefusal) {
  const auto refused = [](Code code, Reason reason = Reason::kNone) {
    return is_refusal(Error{code, "", Side::kNone, "", reason});
  };
  for (const Code code : {Code::kFailedPrecondition, Code::kAlreadyExists, Code::kDataLoss,
                          Code::kInvalidArgument, Code::kPermissionDenied}) {
    EXPECT_TRUE(refused(code)) << to_string(code);
  }
  for (const Reason reason : {Reason::kDiffers, Reason::kNotSiphons, Reason::kPoolChanged}) {
    EXPECT_TRUE(refused(Code::kUnknown, reason)) << static_cast<int>(reason);
  }
  for (const Code code :
       {Code::kUnavailable, Code::kDeadlineExceeded, Code::kNotFound, Code::kCancelled,
        Code::kInternal, Code::kUnknown, Code::kResourceExhausted, Code::kAborted}) {
    EXPECT_FALSE(refused(code)) << to_string(code);
  }
  EXPECT_FALSE(refused(Code::kFailedPrecondition, Reason::kNoPlugin)) << "nobody there to ask";
  EXPECT_FALSE(refused(Code::kFailedPrecondition, Reason::kDegraded));
  EXPECT_FALSE(refused(Code::kResourceExhausted, Reason::kBusy));
}

TEST(CliExitCodes, WhereAllFailTheGravestIsToldInWhateverOrder) {
  const auto exit_of = [](const std::vector<Error>& errors) {
    Tally tally;
    for (const Error& error : errors) tally.fail(error);
    EXPECT_EQ(tally.failed, errors.size());
    return exit_for(tally);
  };
  const std::vector<std::pair<Error, Exit>> by_gravity = {
      {{Code::kDataLoss, "", Side::kNone, "", Reason::kNone}, Exit::kFatal},
      {{Code::kOutOfRange, "", Side::kNone, "", Reason::kClusterLimit}, Exit::kNotFit},
      {{Code::kPermissionDenied, "", Side::kNone, "", Reason::kNone}, Exit::kPermission},
      {{Code::kResourceExhausted, "", Side::kNone, "", Reason::kNone}, Exit::kLimit},
      {{Code::kNotFound, "", Side::kNone, "", Reason::kNone}, Exit::kNotFound},
      {{Code::kInvalidArgument, "", Side::kNone, "", Reason::kNone}, Exit::kUsage},
      {{Code::kUnavailable, "", Side::kNone, "", Reason::kNone}, Exit::kTemporary},
      {{Code::kInternal, "", Side::kNone, "", Reason::kNone}, Exit::kOther}};
  for (std::size_t i = 0; i < by_gravity.size(); ++i) {
    const auto& [graver, exit] = by_gravity[i];
    EXPECT_EQ(exit_of({graver}), exit);
    for (std::size_t j = i + 1; j < by_gravity.size(); ++j) {
      EXPECT_EQ(exit_of({graver, by_gravity[j].first}), exit) << i << " " << j;
      EXPECT_EQ(exit_of({by_gravity[j].first, graver}), exit) << i << " " << j;
    }
  }
}

TEST(CliExitCodes, OneThatSucceededMakesItPartialHoweverGraveTheRest) {
  Tally tally;
  tally.fail(Error{Code::kDataLoss, "", Side::kNone, "", Reason::kNone});
  tally.already_there = 1;
  EXPECT_EQ(exit_for(tally), Exit::kPartial);
}

}  // namespace siphon::cli
