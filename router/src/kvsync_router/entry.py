"""The entry point of `kvsync-router`. It imports nothing else, so that Ctrl-C during imports ends with one line."""

from kvsync_entry import run_program


def main() -> None:
    """Run the program with the arguments of this process."""
    run_program("kvsync-router", "kvsync_router.proxy.main")
