"""The invariants that an index promises, as pure functions: facts in, violations out.

Each checker takes what was observed (an engine's own block table, an index's dump, a history) and returns a list of
`Violation`, empty when the promise held. Nothing here talks to a server or keeps a clock, so the same checkers judge a
simulation, a test on real sockets and a cluster under Chaos Mesh. `parse_rows` reads the NDJSON both sides serve.

    I1 check_agreement            I5 check_sequence          I9  check_staleness
    I2 check_no_false_positive    I6 check_epoch             I10 check_departure
    I3 check_no_loss              I7 check_cleared           I11 check_bounds
    I4 check_isolation            I8 check_prefix_closure    I12 check_non_interference
    I13 check_one_outcome, check_no_departed_target
    C1 check_counts

Every one has a planted bug it must catch: `kvsync_testkit.faults.mutants`.

Example (replaces diffing two dumps by hand)::

    violations = check_agreement("pod-0", truth=parse_rows(engine_lines), index=parse_rows(index_lines))
    assert not violations, violations[0]
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
    Row,
    Rows,
    Sample,
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
from kvsync_testkit.checks.routing import Outcome, RequestSent, check_no_departed_target, check_one_outcome

__all__ = [
    "Answer",
    "AppliedBatch",
    "Forgotten",
    "Outcome",
    "RequestSent",
    "Row",
    "Rows",
    "Sample",
    "Transition",
    "TrustSample",
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
    "parse_rows",
]
