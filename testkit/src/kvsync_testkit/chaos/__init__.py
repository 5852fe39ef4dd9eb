"""Chaos experiments: break one thing, prove that it is broken, heal it, and judge what the index promised meanwhile.

`faults` is the table of what is broken; `backend` is the interface of the three ways to break it: `local` (processes in
network namespaces), `cluster` (the same means on a cluster), and `mesh` (Chaos Mesh). `runner` runs one fault,
`judging` applies the checkers I1 to I13 of `kvsync_testkit.checks`, and `report` and `page` write the results.

    python -m kvsync_testkit.chaos --backend local --faults smoke
"""
