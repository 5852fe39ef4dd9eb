"""Latency profiles in files, as `kvsync calibrate` writes them: a JSON object whose `latency` has the coefficients."""

import json
from pathlib import Path

from kvsync_mockpod.engine import EngineConfigError

MAX_BYTES = 1024 * 1024


def read_latency(value: str) -> str:
    """What `make_latency` reads: the formula in a file if `value` ends in `.json`, and otherwise the value itself.

    Raises EngineConfigError for a file that cannot be read or has no formula.
    """
    if value.lstrip().startswith("{") or not value.endswith(".json"):
        return value
    try:
        with Path(value).open("rb") as file:
            profile = json.loads(file.read(MAX_BYTES))
    except OSError as error:
        raise EngineConfigError(f"latency profile {value}: {error.strerror}") from None
    except ValueError as error:
        raise EngineConfigError(f"latency profile {value}: not JSON: {error}") from None
    if not isinstance(profile, dict) or not isinstance(profile.get("latency"), dict):
        raise EngineConfigError(f"latency profile {value}: has no object `latency`; `kvsync calibrate` writes one")
    return json.dumps(profile["latency"])
