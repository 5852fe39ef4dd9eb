"""What `kvsync doctor` looks at: one function a check, each with a verdict and the next step."""
