"""`kvsync demo`: the whole way once, on real sockets, from a trace to a report that proves index and engines equal."""
