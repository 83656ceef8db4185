"""The promises that `make reliability` puts to the test.

A test that covers one carries `@pytest.mark.reliability(row)`.
"""

from __future__ import annotations

ROWS = {
    1: "SIGKILL at any moment, then resume",
    2: "a checkpoint at every step, all resumes",
    3: "model text never executes",
    4: "adversarial mathematics",
    5: "the same with code that no signal interrupts",
    6: "hanging plugins",
    7: "verdicts do not depend on who asks",
    8: "damaged newest checkpoint",
    9: "SIGKILL while saving",
    10: "no space left on the device",
    11: "SIGTERM and SIGINT",
    12: "whatever a reward returns",
    13: "groups without variance",
    14: "non-finite numbers",
    15: "faults in the data",
    16: "every row accounted for",
    17: "SIGKILL while the record is written",
    18: "locks of the record",
    19: "hostile text on the pages",
    20: "who may reach the pages",
    21: "pickles, YAML tags, remote code",
    22: "static scan of the source",
    23: "configuration changed before a resume",
    24: "data or plugin changed before a resume",
    25: "repeatability",
    26: "engine and learner agree",
    27: "masked, truncated and empty batches",
    28: "ratios that overflow",
    29: "no group ever trains",
    30: "plugins with state or randomness",
    31: "a reward worker dies",
    32: "JSONL cut at every byte",
    33: "hostile names of runs and checkpoints",
    34: "hostile queries",
    35: "migration of the record",
    36: "size of the record",
    37: "size of the write-ahead log",
    38: "hostile text on its whole path",
    39: "one process in a run folder",
    40: "retention of checkpoints",
    41: "several learner processes",
    42: "Ray and its arguments",
    43: "pages while training",
    44: "a long run",
    45: "answers that must not be accepted",
}
"""Row -> what is promised."""

WAITING = {
    19: "there are no web pages yet",
    20: "there are no web pages yet",
    34: "there are no web pages yet",
    41: "there is one learner process so far",
    42: "Ray is not used yet",
    43: "there are no web pages yet",
}
"""Row -> why it has no test."""
