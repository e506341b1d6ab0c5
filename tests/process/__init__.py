"""The process backend beyond the contract: what Linux, the disk and a crash can do to it."""
