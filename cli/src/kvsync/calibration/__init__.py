"""`kvsync calibrate`: from measured answers of an engine to the coefficients of a latency model."""
