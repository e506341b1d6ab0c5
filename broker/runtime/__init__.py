"""Makes the Java that is brought into images that have none (``agent-broker runtime build``)."""
