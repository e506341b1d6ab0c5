"""One suite over every backend kind; see ``tests/contract/harness.py`` for how to add one."""
