"""The sentence that both reports contain when the requests of a trace were not in order of time."""


def order_note(reordered: int) -> str:
    """Empty if no request had to be moved."""
    if not reordered:
        return ""
    moved = "1 request" if reordered == 1 else f"{reordered:,} requests"
    return f"The trace was not in order of time: {moved} came after a later one, and all were sorted by timestamp."
