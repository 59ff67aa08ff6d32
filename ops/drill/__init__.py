"""Faults on purpose: `callbox drill`."""
