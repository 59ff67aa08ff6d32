"""Several texts spoken at once: streams are the rows of one batch, and each step makes a frame of all that can go on.

A row whose text is late rests: it computes along, and nothing of it changes. What a stream says does not depend on when
its text comes, on the size of its packets, or on who else is in the batch.
"""

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import IntEnum
from functools import partial

import torch
from torch import Tensor

from daemons.tts.engines.qwen3.cache import StaticCache
from daemons.tts.engines.qwen3.codec.incremental import IncrementalDecoder, State
from daemons.tts.engines.qwen3.config import TalkerConfig
from daemons.tts.engines.qwen3.graphs import Driver, Fetched, Graphed
from daemons.tts.engines.qwen3.sampling import CodeSampler, request_key
from daemons.tts.engines.qwen3.stream import RAMP, Ending, Feed, Stream
from daemons.tts.engines.qwen3.talker import Talker


class _Need(IntEnum):
    """Of a row, the lowest first."""

    COMMITTED = 0
    SPECULATIVE = 1
    IDLE = 2  # its stream is far enough ahead, or its text is late
    FREE = 3


@dataclass(slots=True)
class _Carried:
    """What a row holds of its stream from step to step, for as long as it has none."""

    cache: StaticCache
    frame: Tensor
    heard: Tensor
    state: State


@dataclass(slots=True)
class _Packet:
    """Audio [rows, samples] that is on its way from the device, and whose it is."""

    arrives: Fetched
    streams: dict[int, Stream]


class Batch:
    """`opening` [length, hidden_size] is what the talker reads before a text's first token, the same for all streams.

    Not to be stepped by two threads at once. `codegen` and `decoding` are the drivers of graphs, each with a stream of
    its own on the device, so that codes are made while others become audio.
    """

    def __init__(
        self,
        talker: Talker,
        decoder: IncrementalDecoder,
        sampler: CodeSampler,
        config: TalkerConfig,
        opening: Tensor,
        *,
        rows: int,
        room: int,
        graphed_room: int | None = None,
        codegen: Driver | None = None,
        decoding: Driver | None = None,
    ) -> None:
        """`room`: positions of a stream, its opening included; within `graphed_room` of them graphs are used."""
        like = opening
        hidden_size = config.transformer.hidden_size
        self.rows = rows
        self._talker, self._sampler, self._decoder = talker, sampler, decoder
        self._config = config
        self._room, self._graphed_room = room, min(graphed_room or room, room)
        self._device = like.device
        self._opening = opening
        cache = StaticCache.empty(config.transformer, rows, room, device=like.device, dtype=like.dtype)
        self._cache = cache
        self._predictor_cache = StaticCache.empty(
            config.predictor.transformer, rows, config.codebooks, device=like.device, dtype=like.dtype
        )
        self._state = decoder.begin(rows)
        # What is carried from step to step, each row's own, at addresses that never change
        self._frame = torch.zeros(rows, hidden_size, device=like.device, dtype=like.dtype)
        self._hidden = torch.zeros_like(self._frame)
        self._scores = torch.zeros(rows, config.codes, device=like.device, dtype=like.dtype)
        self._heard = torch.zeros(rows, config.codes, device=like.device, dtype=torch.bool)
        with torch.inference_mode():
            self._beginning = self._begun()
        near = cache.first(self._graphed_room)
        self._codegen, self._decoding = codegen, decoding
        self.read = Graphed(
            "talker",
            lambda *given: self._read(near, *given),
            codegen,
            eagerly=lambda *given: self._read(cache, *given),
        )
        self.choose = Graphed("predictor", self._choose, codegen)
        self.decode = Graphed("decoder", self._decode, decoding)
        self._row: list[Stream | None] = [None] * rows
        self._opened: deque[Stream] = deque()
        self._waiting: list[Stream] = []
        self._carried: dict[Stream, _Carried] = {}  # of those who wait and have begun
        self._under_way: list[_Packet | tuple[Stream, Ending]] = []

    @property
    def graphed(self) -> tuple[Graphed, ...]:
        return self.read, self.choose, self.decode

    def open(
        self,
        feed: Feed,
        *,
        seed: int,
        name: str = "",
        on_audio: Callable[[Tensor], None],
        on_end: Callable[[Ending], None],
        packets: tuple[int, ...] = RAMP,
    ) -> Stream:
        """A stream that begins when its text does and a row is free. Same seed, name and text: same codes."""
        stream = Stream(feed, request_key(seed, name), on_audio, on_end, packets)
        self._opened.append(stream)
        return stream

    @torch.inference_mode()
    def capture(self) -> None:
        """Record all graphs. No stream may be open."""
        nobody = self._tensor([False] * self.rows)
        number = torch.zeros(self.rows, dtype=torch.int64, device=self._device)
        with self._on(self._codegen):
            self.read.capture(number, number + len(self._opening), nobody)
            self.choose.capture(number, number, nobody)
        with self._on(self._decoding):
            for frames in sorted(set(RAMP)):
                codes = torch.zeros(self.rows, self._config.codebooks, frames, dtype=torch.int64, device=self._device)
                self.decode.capture(codes, nobody)

    @torch.inference_mode()
    def step(self) -> bool:
        """One frame of each stream that has text for it; whether anything was done.

        A packet is delivered while the step after it is under way, or by the next step that has nothing else to do.
        """
        self._seat()
        going = {row: stream for row, stream in enumerate(self._row) if stream is not None and stream.can_go_on()}
        if not going:
            return self._deliver()
        codes = self._codes({row: stream.next_token() for row, stream in going.items()})
        ended: dict[int, Ending] = {}
        for row, stream in going.items():
            if codes[row][0] == self._config.codec_ids.eos:
                ended[row] = Ending.FINISHED
                continue
            stream.codes.append(codes[row])
            if self._position(stream) == self._room:
                ended[row] = Ending.LENGTH
        self._say(going, ended)
        for row, ending in ended.items():
            self._leave(row, ending)
        return True

    # Who sits where

    def _seat(self) -> None:
        """Rows of streams that are closed become free, and those who can go on sit down, the committed ones first."""
        while self._opened:
            self._waiting.append(self._opened.popleft())
        for row, stream in enumerate(self._row):
            if stream is not None and stream.is_closed:
                self._leave(row, Ending.CLOSED)
        for stream in [stream for stream in self._waiting if stream.is_closed]:
            self._waiting.remove(stream)
            self._carried.pop(stream, None)
            stream.on_end(Ending.CLOSED)
        needs = {stream: need for stream in self._waiting if (need := _need(stream)) < _Need.IDLE}
        for stream, need in sorted(needs.items(), key=lambda waiting: waiting[1]):
            row = max(range(self.rows), key=lambda row: _need(self._row[row]))
            other = self._row[row]
            if _need(other) <= need:
                return
            if other is not None:
                self._stand_up(row, other)
            self._waiting.remove(stream)
            self._sit_down(row, stream)

    def _sit_down(self, row: int, stream: Stream) -> None:
        carried = self._carried.pop(stream, self._beginning)
        with self._on(self._codegen):
            self._cache.row(row).copy_from(carried.cache)
            self._frame[row] = carried.frame
            self._heard[row] = carried.heard
        with self._on(self._decoding):
            self._state.put(row, carried.state)
        self._row[row] = stream

    def _stand_up(self, row: int, stream: Stream) -> None:
        """It will go on from where it is, in whatever row."""
        self._row[row] = None
        self._waiting.insert(0, stream)
        with self._on(self._codegen):
            cache = self._new_cache(self._position(stream))
            cache.copy_from(self._cache.row(row).first(cache.room))
            frame, heard = self._frame[row].clone(), self._heard[row].clone()
        with self._on(self._decoding):
            self._carried[stream] = _Carried(cache, frame, heard, self._state.take(row))

    def _leave(self, row: int, ending: Ending) -> None:
        if (stream := self._row[row]) is not None:
            self._under_way.append((stream, ending))
        self._row[row] = None

    def _position(self, stream: Stream | None) -> int:
        """Where its next frame will stand in the talker's cache."""
        return len(self._opening) + (0 if stream is None else len(stream.codes))

    # Codes

    def _begun(self) -> _Carried:
        """What every stream begins with: the opening has been read."""
        device, length = self._device, len(self._opening)
        cache = self._new_cache(length)
        self._talker.prefill(self._opening[None], torch.tensor([length], device=device), cache)
        bos = self._talker.embed_code(torch.tensor([self._config.codec_ids.bos], device=device))[0]
        return _Carried(cache, bos, torch.zeros_like(self._heard[0]), self._decoder.begin(1))

    def _new_cache(self, positions: int) -> StaticCache:
        """Of the talker, for one row."""
        like = self._opening
        return StaticCache.empty(self._config.transformer, 1, positions, device=like.device, dtype=like.dtype)

    def _codes(self, tokens: dict[int, int]) -> list[list[int]]:
        """The next frame of each of these rows; what stands in the others' place means nothing."""
        rows = range(self.rows)
        at = [self._position(stream) for stream in self._row]
        keys = [0 if stream is None else stream.key for stream in self._row]
        frames = [0 if stream is None else len(stream.codes) for stream in self._row]
        within = max(at) < self._graphed_room  # those that rest write, too, where their next frame will
        with self._on(self._codegen):
            active = self._tensor([row in tokens for row in rows])
            self.read(self._tensor([tokens.get(row, 0) for row in rows]), self._tensor(at), active, within=within)
            (codes,) = self.choose(self._tensor(keys), self._tensor(frames), active)
            self._deliver()
            told: list[list[int]] = codes.tolist()
        return told

    def _read(self, cache: StaticCache, tokens: Tensor, positions: Tensor, active: Tensor) -> tuple[Tensor, ...]:
        embeddings = self._talker.embed_text(tokens) + self._frame
        hidden, scores = self._talker.read(embeddings, positions, cache)
        self._hidden.copy_(torch.where(active[:, None], hidden, self._hidden))
        self._scores.copy_(torch.where(active[:, None], scores, self._scores))
        return ()

    def _choose(self, keys: Tensor, frames: Tensor, active: Tensor) -> tuple[Tensor, ...]:
        noise = self._sampler.noise(keys, frames)
        heard = self._heard.clone()
        first = self._sampler.first(self._scores, heard, frames, noise)
        codes = self._talker.frame(
            self._hidden,
            first,
            partial(self._sampler.other, noise),
            self._predictor_cache,
        )
        self._heard.copy_(torch.where(active[:, None], heard, self._heard))
        self._frame.copy_(torch.where(active[:, None], self._talker.embed_frame(codes), self._frame))
        return (codes,)

    # Audio

    def _say(self, going: dict[int, Stream], ended: dict[int, Ending]) -> None:
        """Decode the packets that are full, and what is left of streams that have ended; short ones first.

        A stream's first packets are the short ones: somebody waits for them, as nobody does for a long one.
        """
        due = {row: stream.packet(is_last=row in ended) for row, stream in going.items()}
        while due := {row: frames for row, frames in due.items() if frames}:
            size = min(_piece(len(frames)) for frames in due.values())
            together = {row: frames[:size] for row, frames in due.items() if _piece(len(frames)) == size}
            arrives = self._decoded(together, size)
            self._under_way.append(_Packet(arrives, {row: going[row] for row in together}))
            due.update({row: due[row][size:] for row in together})

    def _decoded(self, frames: dict[int, list[list[int]]], size: int) -> Fetched:
        """Audio [rows, samples] of what each row says next; that of other rows means nothing."""
        nothing = [[0] * self._config.codebooks] * size
        with self._on(self._decoding):
            codes = torch.tensor([frames.get(row, nothing) for row in range(self.rows)], device=self._device)
            active = self._tensor([row in frames for row in range(self.rows)])
            (audio,) = self.decode(codes.transpose(1, 2).contiguous(), active)
            arrives: Fetched = audio.cpu if self._decoding is None else self._decoding.fetch(audio)
            return arrives

    def _deliver(self) -> bool:
        """Hand on what has been decoded, in order; whether there was anything."""
        under_way, self._under_way = self._under_way, []
        for one in under_way:
            if isinstance(one, _Packet):
                audio = one.arrives()
                for row, stream in one.streams.items():
                    if not stream.is_closed:
                        stream.on_audio(audio[row])
            else:
                stream, ending = one
                stream.on_end(ending)
        return bool(under_way)

    def _decode(self, codes: Tensor, active: Tensor) -> tuple[Tensor, ...]:
        return (self._decoder.step(codes, self._state, active),)

    def _tensor(self, values: Iterable[int]) -> Tensor:
        return torch.tensor(list(values), device=self._device)

    def _on(self, driver: Driver | None) -> AbstractContextManager[object]:
        return nullcontext() if driver is None else driver.stream()


def _piece(frames: int) -> int:
    """How many of so many frames are decoded at once: packets that were captured, and no other size."""
    return max(size for size in RAMP if size <= frames)


def _need(stream: Stream | None) -> _Need:
    if stream is None:
        return _Need.FREE
    if not stream.can_go_on():
        return _Need.IDLE
    return _Need.SPECULATIVE if stream.is_speculative else _Need.COMMITTED
