"""The body of every answer with a status of 400 or more."""

import msgspec


class ErrorDetail(msgspec.Struct, omit_defaults=True):
    """What is wrong with the request."""

    message: str
    """One line."""
    field: str | None = None
    """The field of the request that is wrong, if it is one."""


class ErrorAnswer(msgspec.Struct):
    """`{"error": {"message": …, "field": …}}`."""

    error: ErrorDetail
