"""Sounds by which a listener says "go on" without wanting the floor."""

import re

# After the tag "b" of Jurafsky et al., "Switchboard SWBD-DAMSL Shallow-Discourse-Function Annotation", 1997
_SOUNDS = frozenset(
    {"ah", "aha", "ahh", "hm", "hmm", "hmmm", "huh", "mhm", "mm", "mmhm", "mmhmm", "mmm", "oh", "ooh", "uh", "uhhuh"}
    | {"uhum", "um", "wow", "alright", "cool", "exactly", "gotcha", "great", "nice", "ok", "okay", "right", "sure"}
    | {"true", "ya", "yeah", "yep", "yes", "yup"}
)
_PHRASES = frozenset({"i see", "got it", "of course", "go on", "all right", "that's right", "no way"})
_MOST_WORDS = 3


def is_backchannel(text: str) -> bool:
    """Whether `text`, heard while the agent speaks, asks for nothing; so does what holds no words.

    "no", "stop", "wait" and the like want the floor.
    """
    words = re.sub(r"[^\w' ]", " ", text.lower().replace("-", "")).split()
    if len(words) > _MOST_WORDS:
        return False
    return " ".join(words) in _PHRASES or all(word in _SOUNDS for word in words)
