"""The live pod: its ranks, which step engines on the event loop, and the state that they share."""

from kvsync_mockpod.pod.environment import Environment, ignored_variables, unknown_variables
from kvsync_mockpod.pod.generation import Generation, LiveRequest, Mailbox
from kvsync_mockpod.pod.pod import Pod
from kvsync_mockpod.pod.rank import Rank

__all__ = [
    "Environment",
    "Generation",
    "LiveRequest",
    "Mailbox",
    "Pod",
    "Rank",
    "ignored_variables",
    "unknown_variables",
]
