"""The tiny daemon without its patience: when the registry has lost its data, it takes new calls at once."""

from daemons import runtime
from tests.tiny_daemon import Tiny

if __name__ == "__main__":
    runtime.ADOPTION_S = 0.0
    runtime.main(Tiny)
