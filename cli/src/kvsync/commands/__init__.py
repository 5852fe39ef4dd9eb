"""One module a subcommand; each reads flags and calls something that can be called without them."""
