"""One text that is spoken while it is written: what goes into a batch for it, and what comes out."""

from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from torch import Tensor

RAMP = (1, 2, 4, 8, 12)  # frames of 80 ms in a stream's packets, the last one for all that follow


class Ending(StrEnum):
    FINISHED = "finished"  # the talker said so
    LENGTH = "length"  # there is no room for more frames
    CLOSED = "closed"  # nobody wants it any more


class Feed(Protocol):
    """Token ids of a text that may still be written, as `TextFeed` gives them."""

    @property
    def has_text(self) -> bool: ...

    def put(self, piece: str) -> None: ...

    def end(self) -> None: ...

    def take(self) -> int | None: ...


class Stream:
    """A text and its audio. `write`, `end` and `close` may be called from any thread, and `rests` and `is_speculative`
    be set; the rest belongs to `Batch.step`.

    `on_audio` is given float32 [n] at 24 kHz on the CPU, packet by packet, a view that does not last, and `on_end` why
    nothing more comes. Both are called in the thread that steps.
    """

    def __init__(
        self,
        feed: Feed,
        key: int,
        on_audio: Callable[[Tensor], None],
        on_end: Callable[[Ending], None],
        packets: tuple[int, ...] = RAMP,
    ) -> None:
        self.codes: list[list[int]] = []  # of each frame
        self.key = key
        self.on_audio = on_audio
        self.on_end = on_end
        self.is_closed = False
        self.rests = False  # nothing more is made until it is cleared
        self.is_speculative = False  # others come first
        self._feed = feed
        self._written: deque[str | None] = deque()
        self._token: int | None = None  # the next one of its text, if that is there
        self._packets = packets
        self._packets_due = 0
        self._frames_due = 0

    def write(self, text: str) -> None:
        self._written.append(text)

    def end(self) -> None:
        """No more text follows."""
        self._written.append(None)

    def close(self) -> None:
        """No more of it is made after the step that is under way."""
        self.is_closed = True

    def can_go_on(self) -> bool:
        """Whether its next frame is wanted, and the text for it is there."""
        if self.rests:
            return False
        if self._token is None:
            self._read()
            if self.codes or self._feed.has_text:
                self._token = self._feed.take()
        return self._token is not None

    def next_token(self) -> int:
        """Of its text, once it can go on."""
        token, self._token = self._token, None
        if token is None:
            raise ValueError("the text is late")
        return token

    def packet(self, *, is_last: bool) -> list[list[int]]:
        """The codes of the frames that are due to be decoded together, none while the packet is not full."""
        due = len(self.codes) - self._frames_due
        size = self._packets[min(self._packets_due, len(self._packets) - 1)]
        if not is_last:
            if due < size:
                return []
            due = size
        frames = self.codes[self._frames_due : self._frames_due + due]
        self._frames_due += due
        self._packets_due += 1
        return frames

    def _read(self) -> None:
        while self._written:
            text = self._written.popleft()
            if text is None:
                self._feed.end()
            else:
                self._feed.put(text)
