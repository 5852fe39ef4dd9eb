"""The exceptions that end a command, and their exit codes.

KvsyncError              1  something that should have worked did not
├── UsageProblemError    2  a flag, file or value that cannot be used
├── StartFailedError     1  a process that died or did not become ready
├── UnreachableError     1  a server that does not answer
└── InterruptedRunError  130 or 143  Ctrl-C or SIGTERM
"""


class KvsyncError(Exception):
    """The base class of the errors that end a command with one line on stderr."""

    exit_code = 1


class UsageProblemError(KvsyncError):
    """The user can correct the problem on the command line or in a file."""

    exit_code = 2


class StartFailedError(KvsyncError):
    """A process that the command started died or did not become ready."""


class UnreachableError(KvsyncError):
    """A server did not answer."""


class InterruptedRunError(KvsyncError):
    """A signal from the user or the system ended the run."""

    def __init__(self, signal_number: int) -> None:
        super().__init__("interrupted; all processes that this command started have been stopped")
        self.exit_code = 128 + signal_number
