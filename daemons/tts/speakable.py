"""Text as it is written, made into text as it is said: no markdown, no emoji, addresses in words."""

import re

_FENCE = re.compile(r"```[^\n`]*|~~~[^\n~]*")
_IMAGE = re.compile(r"!\[([^\]]*)\]\([^)\s]*(?:\s+\"[^\"]*\")?\)")
_LINK = re.compile(r"\[([^\]]+)\]\([^)\s]*(?:\s+\"[^\"]*\")?\)")
_HALF_LINK = re.compile(r"!?\[|\](?:\([^)\s]*(?:\s+\"[^\"]*\")?\)?)?")  # of one that was cut between two segments
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_HEADING_OR_QUOTE = re.compile(r"^[ \t]*(?:#{1,6}[ \t]+|>[ \t]?)+", re.MULTILINE)
_BULLET = re.compile(r"^[ \t]*[-*+•‣·][ \t]+", re.MULTILINE)
_RULE = re.compile(r"^[ \t]*(?:[-*_=][ \t]*){3,}$", re.MULTILINE)
_TABLE_RULE = re.compile(r"^[ \t|:-]*\|[ \t|:-]*$", re.MULTILINE)
_CELL = re.compile(r"[ \t]*\|[ \t]*")
_TIMES = re.compile(r"(?<=\d) ?[*×] ?(?=\d)")
_STARS = re.compile(r"\*+|`+|~~")
_UNDERLINE = re.compile(r"(?<!\w)_+|_+(?!\w)")
_EMAIL = re.compile(r"\b([\w.+-]+)@([\w-]+(?:\.[\w-]+)+)")
_URL = re.compile(r"(?:https?://|www\.)[^\s<>()\[\]\"']*[^\s<>()\[\]\"'.,;:!?]", re.IGNORECASE)
_SYMBOLS = {"&": " and ", "→": " to ", "≈": " about ", "…": "...", "\u00a0": " "}
_SYMBOL = re.compile("|".join(map(re.escape, _SYMBOLS)))
# Pictographs, their joiners, selectors and skin tones, flags, dingbats, arrows, box drawing, private use
_PICTURES = re.compile(
    "[\U0001f000-\U0001faff\U000e0000-\U000e007f\u2190-\u21ff\u2300-\u27bf\u2900-\u297f\u2b00-\u2bff"
    "\u2500-\u25ff\ufe00-\ufe0f\u200b-\u200d\u2060\u20e3\ue000-\uf8ff]+"
)
_SPACES = re.compile(r"\s+")
_SPACE_BEFORE_MARK = re.compile(r"\s+(?=[,.;:!?，、。；：！？])")
_COMMAS = re.compile(r",(?:\s*,)+")
_SAID = re.compile(r"\w")


def speakable(text: str) -> str:
    """What a voice should be given for `text`; "" when nothing in it can be said."""
    text = _TAG.sub(" ", _FENCE.sub(" ", text))
    text = _HALF_LINK.sub("", _LINK.sub(r"\1", _IMAGE.sub(r"\1", text)))
    text = _TABLE_RULE.sub("", _RULE.sub("", text))
    text = _BULLET.sub("", _HEADING_OR_QUOTE.sub("", text))
    text = _EMAIL.sub(lambda found: f"{_in_words(found[1])} at {_in_words(found[2])}", text)
    text = _URL.sub(_host_in_words, text)
    text = _UNDERLINE.sub("", _STARS.sub("", _TIMES.sub(" times ", text)))
    text = _CELL.sub(", ", text)
    text = _SYMBOL.sub(lambda found: _SYMBOLS[found[0]], text)
    text = _SPACES.sub(" ", _PICTURES.sub(" ", text))
    text = _COMMAS.sub(",", _SPACE_BEFORE_MARK.sub("", text)).strip()
    text = text.removeprefix(",").removesuffix(" ,").strip()
    return text if _SAID.search(text) else ""


def _host_in_words(found: re.Match[str]) -> str:
    """Nobody wants to hear a path: the host says where it leads."""
    host = re.sub(r"^(?:https?://)?(?:www\.)?", "", found[0], flags=re.IGNORECASE)
    return _in_words(re.split(r"[/?#:]", host, maxsplit=1)[0])


def _in_words(name: str) -> str:
    return name.replace(".", " dot ").replace("_", " ").replace("-", " dash ").replace("+", " plus ")
