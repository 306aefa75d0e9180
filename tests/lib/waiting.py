"""Waiting for what somebody else does, never longer than it may take."""

import time

DEADLINE_S = 60  # for what takes a second on an idle machine


def wait_until(predicate, deadline_s=DEADLINE_S, what="the condition", poll_s=0.05):
    """Polls until `predicate` returns something true, and returns that."""
    end = time.monotonic() + deadline_s
    while not (value := predicate()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s} s: {what}")
        time.sleep(poll_s)
    return value
