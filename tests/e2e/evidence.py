"""Where tests leave screenshots for people to look at."""

from daemons.settings import ROOT

EVIDENCE = ROOT / "var/evidence"
EVIDENCE.mkdir(parents=True, exist_ok=True)
