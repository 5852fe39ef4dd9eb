"""Plants the bug that KVSYNC_PLANTED_BUG names. Python imports this module at start-up if it finds it on its path.

Only the processes that the planted-bug tests start, and the image that they build, have this folder on their path.
"""

import os

if os.environ.get("KVSYNC_PLANTED_BUG"):
    import planted_bugs

    planted_bugs.BUGS[os.environ["KVSYNC_PLANTED_BUG"]].plant()
