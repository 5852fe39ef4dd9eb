"""The one exception tree of the package.

WorkloadError
├── TraceError       a trace that cannot be read; names the file and the line
├── SyntheticError   a description of a synthetic workload that cannot be used; names the file and the field
├── RequestLogError  a request log that cannot be converted; names the file and the line
├── CampaignError    tasks that cannot be run, or that were lost with their workers
└── SettingError     a setting outside its range, such as a speed, a rate or a scale

Every message is one line for a person.
"""


class WorkloadError(Exception):
    """Base of every error that this package raises on purpose."""


class TraceError(WorkloadError):
    """The trace cannot be read, or one of its lines is not a request."""


class SyntheticError(WorkloadError):
    """The description of a synthetic workload cannot be read, or one of its fields is invalid."""


class RequestLogError(WorkloadError):
    """The request log cannot be read, or one of its lines cannot be converted."""


class CampaignError(WorkloadError):
    """The tasks of a campaign cannot be run, or were lost with their workers."""


class SettingError(WorkloadError):
    """A setting is outside its range."""
