"""What tests of KV block management and cache-aware routing share.

- `checks/`: the invariants I1-I12 as pure functions over ground truth, index dumps and histories
- `faults/`: seeded fault schedules in virtual time: publisher, lossy channel, the real state machine and core
"""
