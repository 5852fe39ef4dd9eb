"""The implementation of `kvsync demo`.

A demo replays a trace over real sockets for each policy, kills and restarts an engine, audits the index against the
engines, and writes a report.
"""
