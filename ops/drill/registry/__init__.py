"""The registry against its model: `callbox drill registry`."""
