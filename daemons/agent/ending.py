"""How much silence ends the caller's turn: little when words and voice sound finished, more when they do not.

Pure. `endpoint_ms` weighs two witnesses: the words so far, as STT writes them, and the probability that Smart Turn
gives for the voice. Each brings a doubt between 0 (finished) and 1; the doubts are joined as independent ones are.
"""

import re
from dataclasses import dataclass
from enum import Enum, unique


@unique
class Words(Enum):
    """What the words say of themselves; the value is the doubt that they leave."""

    FINISHED = 0.0  # a sentence, or a short answer
    OPEN = 0.2  # no mark at the end, or a comma
    UNFINISHED = 0.5  # "I would like a", "because", "um"
    DICTATING = 0.6  # digits, letters or an address: how long it will be, only the caller knows


@dataclass(frozen=True, slots=True)
class Waits:
    """Milliseconds of silence."""

    shortest_ms: float = 200
    longest_ms: float = 1500


VOICE_FINISHED = 0.8  # probability from which on the voice leaves no doubt
VOICE_GOES_ON = 0.1
VOICE_DOUBT = 0.7  # what a voice that surely goes on leaves to doubt, were the words finished
UNHEARD_DOUBT = 0.25  # without the model, or when its answer came too late
NO_WITNESS_DOUBT = 0.4  # neither words nor voice: 0.7 s, the fixed wait that cuts off fewest and is still borne

# English, at the end and without its mark: Moonshine puts a full stop or a comma after words that it was cut off at.
_GOES_ON = re.compile(
    r"\b(?:and|or|but|nor|because|although|unless|until|while|whereas|if|than|when|where|which|who|whose|whether|as|plus"
    r"|so|a|an|the|my|your|our|their|every|another|in (?:his|her)|a (?:little|few)|such as|very|gonna|wanna"
    r"|of|to|for|with|from|into|at|between|without|during|per|about|by"
    r"|i|we|he|she|they|\w+'(?:m|re|ve|ll|d)|(?:he|she|it|that|there|what|who|let)'s|is|are|was|were"
    r"|um|uhm?|erm?|hmm?|mm+|mhm|ah|eh|like|you know|i mean|(?:sort|kind) of)$"
)
_ENDS_AFTER_ALL = re.compile(
    r"\b(?:(?:think|hope|guess|suppose|believe|say|said|thought|not|do|did|even|or) so"
    r"|(?:looks?|feels?|i'd|would) like|to (?:talk|speak|listen|go|look) (?:to|with|at|for)"
    r"|(?:it|he|she|there|they|we|you|(?:yes|no|yeah) (?:that|this)) (?:is|are|was|were)"
    r"|(?:want|like|love|have|need|going|used|able) to)$"
)
_ANSWER = re.compile(
    r"(?:yes|yeah|yep|yup|no|nope|nah|ok|okay|sure|right|correct|exactly|thanks|hello|hi|hey|bye|goodbye|please|stop"
    r"|never|maybe|none|absolutely|definitely|certainly|great|good|fine|cool|perfect|nothing|sorry)"
)
_NUMBER = r"(?:zero|oh|one|two|three|four|five|six|seven|eight|nine|double|triple)"
_DIGIT_GROUPS = re.compile(r"\d+(?:[.,)]*(?:\s+|-)\(?\d+)+$")
_SPOKEN_DIGITS = re.compile(rf"(?:\b{_NUMBER}[\s,.-]+)+{_NUMBER}$")
_LETTERS = re.compile(r"(?:\b[a-z][\s,.-]+){2,}[a-z]$")
_ADDRESS = re.compile(r"(?:@[\w.-]*|\b(?:dot|underscore|hyphen|slash|dash|at sign))$")
_FINAL = re.compile(r"[.?!。？！؟।…]+[\"'”’)»」]*$")
_ELLIPSIS = re.compile(r"(?:\.\.+|…|[-–—])[\"'”’)»」]*$")
DICTATED_DIGITS = 3  # so many in several groups are a number being dictated; "1985" and "$12.50" are none


def words(text: str, language: str = "en") -> Words:
    """Of what was said so far. `language`: ISO 639-1; for all but English the marks and digits count alone."""
    said = text.strip().lower()
    if _ELLIPSIS.search(said):
        return Words.UNFINISHED
    bare = said.rstrip(" .,;:?!。，、？！؟।…\"'”’)»」")
    if _is_dictated(bare, language):
        return Words.DICTATING
    if language.startswith("en") and not said.endswith(("?", "!")):
        plain = bare.replace(",", "")
        if _ANSWER.fullmatch(plain):
            return Words.FINISHED
        if _GOES_ON.search(plain) and not _ENDS_AFTER_ALL.search(plain):
            return Words.UNFINISHED
    return Words.FINISHED if _FINAL.search(said) else Words.OPEN


def _is_dictated(bare: str, language: str) -> bool:
    if groups := _DIGIT_GROUPS.search(bare):
        return sum(map(str.isdigit, groups[0])) >= DICTATED_DIGITS
    if _ADDRESS.search(bare):
        return True
    return language.startswith("en") and bool(_SPOKEN_DIGITS.search(bare) or _LETTERS.search(bare))


def endpoint_ms(text: str | None, probability: float | None, waits: Waits, language: str = "en") -> float:
    """Silence that ends the turn after `text`; None where nobody writes the words down.

    `probability`: that the voice sounds complete; None when nobody has asked or the answer came too late.
    """
    if text is None:
        doubt = NO_WITNESS_DOUBT if probability is None else _voice_doubt(probability)
    else:
        doubt = 1 - (1 - words(text, language).value) * (1 - _voice_doubt(probability))
    return waits.shortest_ms + (waits.longest_ms - waits.shortest_ms) * doubt


def _voice_doubt(probability: float | None) -> float:
    if probability is None:
        return UNHEARD_DOUBT
    certain = (probability - VOICE_GOES_ON) / (VOICE_FINISHED - VOICE_GOES_ON)
    return VOICE_DOUBT * (1 - min(max(certain, 0.0), 1.0))
