"""The comparison of indexes that follow the same engines, and the repair of those that differ from an engine."""
