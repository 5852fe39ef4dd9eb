"""The entry point of `kvsync-epp`. It imports nothing else, so that Ctrl-C during imports ends with one line."""

from kvsync_entry import run_program


def main() -> None:
    """Run the program with the arguments of this process."""
    run_program("kvsync-epp", "kvsync_router.picker.main")
