"""Real workers and holders under real faults, and an oracle that reads their journals: `callbox drill faults`."""
