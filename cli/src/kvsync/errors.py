"""What the command line can say when it stops, and with which exit code.

KvsyncError              1  something that should have worked did not
├── UsageProblemError    2  a flag, file or value that cannot be used
├── StartFailedError     1  a process that died or never became ready
├── UnreachableError     1  a server that does not answer
└── InterruptedRunError  130 or 143  Ctrl-C or SIGTERM
"""


class KvsyncError(Exception):
    """Root of the exceptions that end a command with one line."""

    exit_code = 1


class UsageProblemError(KvsyncError):
    """The user can fix this on the command line or in a file."""

    exit_code = 2


class StartFailedError(KvsyncError):
    """A process that was started did not come up, or died."""


class UnreachableError(KvsyncError):
    """A server that was asked did not answer."""


class InterruptedRunError(KvsyncError):
    """The user, or the system, ended the run."""

    def __init__(self, signal_number: int) -> None:
        super().__init__("interrupted: everything that was started is stopped")
        self.exit_code = 128 + signal_number
