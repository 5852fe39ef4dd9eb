"""The invariants that an index and a router promise, as pure functions: a history in, verdicts out.

`judge` takes a `History` of what was observed (engines' own block tables, the index's dump, applied batches, answers,
outcomes of requests) and returns a `Verdict` for each invariant: kept, violated with the first counter-example, or
unchecked because the history has no facts about it. `require_kept` fails a test unless all of them were kept. Nothing
here talks to a server or keeps a clock, so the same checkers judge a simulation, a test on real sockets and a cluster
under Chaos Mesh. `parse_rows` reads the NDJSON that both sides serve.

Underneath, each checker is a function that takes its facts and returns a list of `Violation`:

    I1 check_agreement            I5 check_sequence          I9  check_staleness
    I2 check_no_false_positive    I6 check_epoch             I10 check_departure
    I3 check_no_loss              I7 check_cleared           I11 check_bounds
    I4 check_isolation            I8 check_prefix_closure    I12 check_non_interference
    C1 check_counts               I13 check_one_outcome, check_no_departed_target

Every one has planted bugs that it must catch: in a small model that runs in milliseconds (`checks.model`), and in the
real follower and cores (`kvsync_testkit.faults.mutants`).
"""

from kvsync_testkit.checks.contents import (
    check_agreement,
    check_cleared,
    check_epoch,
    check_isolation,
    check_no_false_positive,
    check_no_loss,
)
from kvsync_testkit.checks.facts import (
    Answer,
    AppliedBatch,
    Forgotten,
    Holding,
    Row,
    Rows,
    Sample,
    Sighting,
    Transition,
    TrustSample,
    Violation,
    parse_rows,
)
from kvsync_testkit.checks.histories import (
    check_bounds,
    check_counts,
    check_departure,
    check_non_interference,
    check_prefix_closure,
    check_sequence,
    check_staleness,
)
from kvsync_testkit.checks.history import History, Isolated, Limits
from kvsync_testkit.checks.judging import Verdict, judge, require_kept
from kvsync_testkit.checks.routing import Outcome, RequestSent, check_no_departed_target, check_one_outcome

__all__ = [
    "Answer",
    "AppliedBatch",
    "Forgotten",
    "History",
    "Holding",
    "Isolated",
    "Limits",
    "Outcome",
    "RequestSent",
    "Row",
    "Rows",
    "Sample",
    "Sighting",
    "Transition",
    "TrustSample",
    "Verdict",
    "Violation",
    "check_agreement",
    "check_bounds",
    "check_cleared",
    "check_counts",
    "check_departure",
    "check_epoch",
    "check_isolation",
    "check_no_departed_target",
    "check_no_false_positive",
    "check_no_loss",
    "check_non_interference",
    "check_one_outcome",
    "check_prefix_closure",
    "check_sequence",
    "check_staleness",
    "judge",
    "parse_rows",
    "require_kept",
]
