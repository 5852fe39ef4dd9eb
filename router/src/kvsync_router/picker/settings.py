"""How the settings of a picker differ from those of the proxy."""

from typing import Final

MAX_BODY_BYTES: Final = 16 << 20
"""A prompt of a million token ids is about 7 MB of JSON. A longer body is passed on without being read."""
PROXY_ONLY: Final = ("first_byte_timeout_s", "idle_timeout_s", "access_log")
"""Settings without a meaning where the gateway keeps the data path."""
