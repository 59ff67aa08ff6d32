"""The bench of many calls at once: how many the agent alone carries, and how many the whole box."""
