"""Decoders that are lost say the same thing over and over; here that is noticed."""

from collections.abc import Sequence

LONGEST_PERIOD = 24
# People do say "no, no, no" and "ha ha ha ha": a short thing counts as a loop only when said more often.
COPIES_OF_SHORT, SHORT = 6, 2
COPIES = 3


def looping_tail(tokens: Sequence[object]) -> int:
    """How many tokens at the end only repeat what stands before them; 0 while the end is no loop."""
    for period in range(1, LONGEST_PERIOD + 1):
        copies = COPIES_OF_SHORT if period <= SHORT else COPIES
        span = period * copies
        if span > len(tokens):
            continue
        tail = tokens[-span:]
        if all(tail[at] == tail[at % period] for at in range(period, span)):
            return span - period
    return 0
