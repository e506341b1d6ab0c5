"""The push hook: what the controller tells of its queue as it happens, and what it is answered."""
