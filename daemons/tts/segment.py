"""Cuts text that arrives word by word into what is said in one piece: a few words early, then more, then sentences."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Segment:
    """What is said in one piece, as it was written, and where in its sentence it stands."""

    text: str
    before: str = ""  # what was cut off the sentence's front already, or the end of it
    after: str | None = (
        None  # the words known to follow in the same sentence, "" when it is not known which; None: none
    )


class _Size(NamedTuple):
    clause_words: int  # from so many words on, a clause is enough;
    limit_words: int  # when so many are there and another one begins, the best place among them will do


# The voice joins the pieces of a sentence, but an early cut makes it guess at the melody of what it has not read yet.
# So the first piece is short, for the sake of the answer's first sound, and each later one about as long as a model of
# ten words a second has written by the time the one before has been said.
_SIZES = (
    (0, _Size(2, 5)),
    (2, _Size(3, 8)),
    (6, _Size(6, 16)),
    (12, _Size(12, 40)),
)  # (words given out, size from then)
FIRST_WORDS, LONGEST_WORDS, LONGEST_CHARS = 5, 40, 300
_WHOLE = _Size(LONGEST_WORDS + 1, LONGEST_WORDS)
_BEFORE_CHARS = 120

_SENTENCE_MARKS = ".!?"
_WIDE_SENTENCE_MARKS = "。！？｡"
_CLAUSE_MARKS = ",;:—"
_WIDE_CLAUSE_MARKS = "，、；：…"
_CLOSERS = "\"'”’)]}»」』）】*_`"
_WIDE = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WIDE_LETTER = re.compile(f"[{_WIDE}]")
# "2 * 3" is one word: its star means something between its numbers only.
_NARROW_RUN = re.compile(rf"[^\s{_WIDE}]+(?:(?<=\d) [*×] \d[^\s{_WIDE}]*)*")
# Searched for in a run that has been found: one pattern for both would try each place of a long run without a letter.
_NARROW_LETTER = re.compile(rf"[^\W{_WIDE}]")
_ENDED = re.compile(rf".*[\s{_WIDE}{_WIDE_SENTENCE_MARKS}{_WIDE_CLAUSE_MARKS}]", re.DOTALL)
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

    def __init__(self, *, whole_sentences: bool = False) -> None:
        """`whole_sentences`: for who does not wait for the first sound."""
        self._whole_sentences = whole_sentences
        self._text = ""
        self._before = ""
        self._words_out = 0

    def push(self, text: str) -> list[Segment]:
        """Take more text; returns what can be said now."""
        self._text += text
        return list(self._cut(final=False))

    def flush(self) -> list[Segment]:
        """What is left, whether or not a sentence has ended."""
        segments = list(self._cut(final=True))
        rest, self._text = self._text.strip(), ""
        if rest:
            segments.append(Segment(rest, self._before))
            self._words_out += count_words(rest)
        self._before = ""
        return segments

    def _cut(self, *, final: bool) -> Iterator[Segment]:
        while (cut := self._next_cut(final=final)) is not None:
            end, after = cut
            segment, self._text = Segment(self._text[:end].strip(), self._before, after), self._text[end:].lstrip()
            self._before = "" if after is None else _last_words(f"{segment.before} {segment.text}")
            if segment.text:
                self._words_out += count_words(segment.text)
                yield segment

    def _next_cut(self, *, final: bool) -> tuple[int, str | None] | None:
        """Where the next segment ends, and the `after` of it, judged by nothing but what stands before the cut, the
        words up to the limit, and one character more. So it does not matter in which pieces the text arrives.
        """
        text, size = self._text, self._size()
        for mark in _MARK.finditer(text):
            end = _past_closers(text, mark.end())
            words = count_words(text[:end])
            if end > LONGEST_CHARS or words > size.limit_words:
                break
            if words and _ends_sentence(text, mark, end, final=final):
                return end, None
            if words >= size.clause_words and _ends_clause(text, mark, end):
                return end, ""
        ends = _word_ends(text)
        if len(ends) > size.limit_words:  # the word after the limit has begun, so the one before it has its end
            end, known = ends[_best_cut(text, ends, size) - 1], ends[size.limit_words - 1]
            return (end, text[end:known].strip()) if known <= LONGEST_CHARS else (end, "")
        if len(text) > LONGEST_CHARS:
            before_limit = [end for end in ends if end <= LONGEST_CHARS]
            return (before_limit[-1] if before_limit else LONGEST_CHARS), ""
        return None

    def _size(self) -> _Size:
        if self._whole_sentences:
            return _WHOLE
        return next(size for from_words, size in reversed(_SIZES) if self._words_out >= from_words)


def ended_words(text: str) -> int:
    """Where the last word ends that no more text can make longer, with the white space behind it; 0: there is none."""
    found = _ENDED.match(text)
    return 0 if found is None else found.end()


def count_words(text: str) -> int:
    """Words as they are spoken: two CJK characters count as one."""
    return len(_word_ends(text))


def _word_ends(text: str) -> list[int]:
    """Where each word ends. A run of wide letters has an end after every second one."""
    ends = [found.end() for found in _NARROW_RUN.finditer(text) if _NARROW_LETTER.search(found[0])]
    wide = [found.end() for found in _WIDE_LETTER.finditer(text)]
    return sorted([*ends, *wide[1::2]])


def _best_cut(text: str, ends: list[int], size: _Size) -> int:
    """How many words to take, fewer than the limit, so that the voice knows how it goes on."""
    most = size.limit_words - 1
    counts = range(most, max(1, most - 3), -1)
    fitting = [count for count in counts if _word_before(text, ends[count - 1]) not in _OPENERS]
    before_phrase = [count for count in fitting if _word_before(text, ends[count]) in _OPENERS and count >= most - 1]
    return next(iter(before_phrase or fitting), most)


def _word_before(text: str, end: int) -> str:
    return text[:end].rsplit(maxsplit=1)[-1].lower() if text[:end].strip() else ""


def _last_words(text: str) -> str:
    """The end of `text`, as much as the voice may need to go on from there."""
    text = text.strip()
    return text if len(text) <= _BEFORE_CHARS else text[-_BEFORE_CHARS:].partition(" ")[2]


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
    following = text[end:].lstrip()
    if mark[0] != ".":
        is_quoted = end > mark.end()
        return (not is_quoted or bool(following) or final) and not (is_quoted and following[:1].islower())
    return _full_stop_ends_sentence(text[: mark.start()], following, final=final)


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
