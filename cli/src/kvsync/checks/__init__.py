"""The checks of `kvsync doctor`. Each check is a function that returns findings with the next step to take."""
