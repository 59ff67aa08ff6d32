"""Side-by-side measurements: `callbox bench`."""
