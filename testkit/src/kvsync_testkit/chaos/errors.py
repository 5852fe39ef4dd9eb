"""The errors of the chaos runner.

ChaosError
├── CapabilityError      the machine or the cluster cannot inject the fault; the verdict is skipped(capability)
└── ManifestError        an experiment document would be refused, or would silently do something else
"""

from kvsync_testkit.errors import KitError


class ChaosError(KitError):
    """The runner cannot go on with a fault; the verdict is failed."""


class CapabilityError(ChaosError):
    """The fault cannot be injected here. The message names what is missing."""


class ManifestError(ChaosError):
    """An experiment document is wrong. The message names the field."""
