"""Cuts text that arrives word by word into what is said in one breath: a first fragment early, then sentences."""

import re
from collections.abc import Iterator

FIRST_WORDS = 6  # the first fragment has a clause or so many words,
FIRST_WORDS_AT_LEAST = 3  # but not fewer than this: shorter ones sound chopped
CLAUSE_WORDS = 20  # a sentence that is longer is cut at a clause
LONGEST_WORDS = 40
LONGEST_CHARS = 300

_SENTENCE_MARKS = ".!?"
_WIDE_SENTENCE_MARKS = "。！？｡"
_CLAUSE_MARKS = ",;:—"
_WIDE_CLAUSE_MARKS = "，、；：…"
_CLOSERS = "\"'”’)]}»」』）】*_`"
_WIDE = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WIDE_LETTER = re.compile(f"[{_WIDE}]")
_NARROW_WORD = re.compile(rf"[^\s{_WIDE}]*[^\W{_WIDE}][^\s{_WIDE}]*")
_MARK = re.compile(f"[{_SENTENCE_MARKS}]+|[{_CLAUSE_MARKS}]|[{_WIDE_SENTENCE_MARKS}{_WIDE_CLAUSE_MARKS}]+|\n")


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


# After these a full stop never ends a sentence, …
_NEVER_LAST = _words(
    "mr mrs ms dr prof st sr jr gen col capt lt sgt rev hon gov pres sen rep vs ca approx eg ie e.g i.e cf "
    "jan feb mar apr jun jul aug sep sept oct nov dec mt ft"
)
# … after these it does unless a number follows, …
_COUNTED = _words("no nos fig vol pp ch")
# … and after these only when a capital follows.
_MAYBE_LAST = _words("a.m p.m am pm etc inc ltd co corp u.s u.k u.n d.c e.u ph.d b.c a.d al dept est ave blvd rd")
# A cut between words sounds best in front of one of these.
_OPENERS = _words(
    "and or but because so that which who when where while if than as of in on at to for from with by about into over "
    "the a an is are was were has have will would can could should"
)


class Segmenter:
    """Segments keep every character but the white space between them; joined by spaces they are the text."""

    def __init__(self) -> None:
        self._text = ""
        self._words_out = 0

    def push(self, text: str) -> list[str]:
        """Take more text; returns what can be said now."""
        self._text += text
        return list(self._cut(final=False))

    def flush(self) -> list[str]:
        """What is left, whether or not a sentence has ended."""
        segments = list(self._cut(final=True))
        rest, self._text = self._text.strip(), ""
        return [*segments, rest] if rest else segments

    def _cut(self, *, final: bool) -> Iterator[str]:
        while (end := self._next_end(final=final)) is not None:
            segment, self._text = self._text[:end].strip(), self._text[end:].lstrip()
            if segment:
                self._words_out += count_words(segment)
                yield segment

    def _next_end(self, *, final: bool) -> int | None:
        """Where the next segment ends, judged by nothing but what stands before the cut and right after it.

        So it does not matter in which pieces the text arrives.
        """
        text = self._text
        early = self._words_out < FIRST_WORDS_AT_LEAST
        clause_words = FIRST_WORDS_AT_LEAST if early else CLAUSE_WORDS
        limit = FIRST_WORDS if early else LONGEST_WORDS
        for mark in _MARK.finditer(text):
            end = _past_closers(text, mark.end())
            words = count_words(text[:end])
            if end > LONGEST_CHARS or words > limit:
                break
            if words and _ends_sentence(text, mark, end, final=final):
                return end
            if words >= clause_words and _ends_clause(text, mark, end):
                return end
        ends = _word_ends(text)
        if len(ends) > limit:  # the word after the limit has begun, so the one before it has its end
            return ends[_best_cut(text, ends, limit) - 1]
        if len(text) > LONGEST_CHARS:
            before_limit = [end for end in ends if end <= LONGEST_CHARS]
            return before_limit[-1] if before_limit else LONGEST_CHARS
        return None


def count_words(text: str) -> int:
    """Words as they are spoken: two CJK characters count as one."""
    return len(_word_ends(text))


def _word_ends(text: str) -> list[int]:
    """Where each word ends. A run of wide letters has an end after every second one."""
    ends = [found.end() for found in _NARROW_WORD.finditer(text)]
    wide = [found.end() for found in _WIDE_LETTER.finditer(text)]
    return sorted([*ends, *wide[1::2]])


def _best_cut(text: str, ends: list[int], limit: int) -> int:
    """How many words to take, at most `limit`: best so many that the next one opens a phrase."""
    for count in range(limit - 1, max(FIRST_WORDS_AT_LEAST, limit - 3) - 1, -1):
        here, following = _word_before(text, ends[count - 1]), _word_before(text, ends[count])
        if following in _OPENERS and here not in _OPENERS:
            return count
    return limit


def _word_before(text: str, end: int) -> str:
    return text[:end].rsplit(maxsplit=1)[-1].lower() if text[:end].strip() else ""


def _past_closers(text: str, at: int) -> int:
    while at < len(text) and text[at] in _CLOSERS:
        at += 1
    return at


def _ends_clause(text: str, mark: re.Match[str], end: int) -> bool:
    if mark[0][0] in _WIDE_CLAUSE_MARKS:
        return True
    is_clause_mark = mark[0] in _CLAUSE_MARKS or mark[0].startswith("..")
    return is_clause_mark and end < len(text) and text[end].isspace()


def _ends_sentence(text: str, mark: re.Match[str], end: int, *, final: bool) -> bool:
    if mark[0] == "\n" or mark[0][0] in _WIDE_SENTENCE_MARKS:
        return True
    if mark[0][0] not in _SENTENCE_MARKS or mark[0].startswith(".."):
        return False
    if end == len(text):
        return final
    if not text[end].isspace():
        return False  # 3.14, 7.30, example.com
    return mark[0] != "." or _full_stop_ends_sentence(text[: mark.start()], text[end:].lstrip(), final=final)


def _full_stop_ends_sentence(before: str, following: str, *, final: bool) -> bool:
    word = _word_before(before, len(before)).lstrip("(\"'“‘[*_")
    if word in _NEVER_LAST or (len(word) == 1 and word.isalpha() and word != "i"):
        return False
    if word.isdecimal() and before.strip() == word:
        return False  # "1." opens a list
    if word in _MAYBE_LAST or word in _COUNTED:
        if not following:
            return final
        return not (following[0].isdigit() if word in _COUNTED else following[0].islower())
    return True
