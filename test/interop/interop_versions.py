"""The vLLM versions to compare with: one on each side of every change of the wire format.

KVSYNC_INTEROP_VERSIONS selects others.
"""

import os

DEFAULT = "0.9.0 0.9.1 0.10.2 0.14.0 0.17.0 0.20.0 0.23.0 0.24.0 0.26.0 0.29.0 0.31.0 0.33.0"
VERSIONS = tuple(os.environ.get("KVSYNC_INTEROP_VERSIONS", DEFAULT).replace(",", " ").split())
