"""Hides the native core when this folder is on PYTHONPATH, so that `make test-pure` runs as on a machine without it."""

raise ImportError("the native core is hidden because hack/no-native is on PYTHONPATH")
