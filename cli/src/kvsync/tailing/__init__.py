"""The implementation of `kvsync tail`: the stream of a publisher as lines, with gaps and restarts marked."""
