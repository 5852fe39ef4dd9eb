"""What can be wrong with the path to a publisher at one moment; a schedule turns the knobs."""

from dataclasses import dataclass


@dataclass(slots=True)
class Knobs:
    """Rates are shares of batches, requests or items."""

    drop: float = 0.0
    mute: float = 0.0
    """No batch arrives live, as if the topics differed: the connection is up and the replay server answers."""
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    """Batches are cut off, so that they no longer decode."""
    bad_frames: float = 0.0
    """Messages without the three frames of the wire are sent between batches."""
    delay: float = 0.0
    """Every batch and answer arrives 0.2 s later."""
    partition: float = 0.0
    """Everything is lost until the heartbeats time out."""
    stall: float = 0.0
    """Nothing arrives until it ends, and then everything does."""
    replay_silent: float = 0.0
    replay_slow: float = 0.0
    """0.1 s pass between items."""
    replay_truncated: float = 0.0
    """The second half of the answer is lost, and the end marker with it."""
    replay_skipping: float = 0.0
    """One to three items in the middle are missing; the end marker arrives."""
    replay_empty: float = 0.0
    """Only the end marker arrives."""
    replay_other: float = 0.0
    """The previous process answers, because an address still leads there."""
    replay_refused: float = 0.0
    replay_holes: float = 0.0
    """A fifth of the items is missing; the end marker arrives."""
    replay_shuffled: float = 0.0
    """The items arrive in any order."""
    replay_twice: float = 0.0
    """Every item arrives twice."""
