"""With this folder on PYTHONPATH the native core is not there: `make test-pure` tests a machine without Rust."""

raise ImportError("the native core is left out here (hack/no-native is on PYTHONPATH)")
