"""`callbox drill disconnects`: clients that are too many, and clients that go away in every way there is."""
