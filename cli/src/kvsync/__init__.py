"""The `kvsync` command: demo, replay, match, tail, audit, doctor, steps, up. `kvsync --help` lists them."""
