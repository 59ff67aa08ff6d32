"""Streams in one batch: what each says depends on its text and its seed alone."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor  # noqa: E402

from daemons.tts.engines.qwen3.batch import Batch  # noqa: E402
from daemons.tts.engines.qwen3.codec.incremental import IncrementalDecoder  # noqa: E402
from daemons.tts.engines.qwen3.graphs import Driver, Miss  # noqa: E402
from daemons.tts.engines.qwen3.prompt import prompt  # noqa: E402
from daemons.tts.engines.qwen3.quantization import quantize  # noqa: E402
from daemons.tts.engines.qwen3.sampling import GREEDY, CodeSampler, SpeechSampling, request_key  # noqa: E402
from daemons.tts.engines.qwen3.stream import RAMP, Ending, Stream  # noqa: E402
from daemons.tts.engines.qwen3.talker import Talker  # noqa: E402
from tests.tts.qwen3.codec.streams import decoder_of_chance  # noqa: E402
from tests.tts.qwen3.tiny import CONFIG, ROLE, opening, speak, tiny_talker  # noqa: E402
from tests.tts.qwen3.tracing import TracingDriver  # noqa: E402

ROOM = 48
EXACT = 1e-5
TEXTS = ("11 12 13 14 15", "21 22 23", "31 32 33 34 35 36 37 38", "41")


class Numbers:
    """A text whose words are its tokens."""

    def __init__(self) -> None:
        self._ready: deque[int] = deque()
        self._has_ended = False

    @property
    def has_text(self) -> bool:
        return bool(self._ready)

    def put(self, piece: str) -> None:
        self._ready.extend(int(word) for word in piece.split())

    def end(self) -> None:
        self._has_ended = True
        self._ready.append(CONFIG.text_ids.tts_eos)

    def take(self) -> int | None:
        if self._ready:
            return self._ready.popleft()
        return CONFIG.text_ids.tts_pad if self._has_ended else None


@dataclass
class Listener:
    packets: list[Tensor] = field(default_factory=list)
    ending: Ending | None = None

    def on_audio(self, audio: Tensor) -> None:
        assert self.ending is None
        self.packets.append(audio.clone())

    def on_end(self, ending: Ending) -> None:
        assert self.ending is None
        self.ending = ending

    @property
    def audio(self) -> Tensor:
        return torch.cat([torch.zeros(0), *self.packets])


@pytest.fixture(scope="module")
def talker() -> Talker:
    return tiny_talker()


@pytest.fixture(scope="module")
def decoder() -> IncrementalDecoder:
    return decoder_of_chance()


@pytest.fixture(scope="module")
def sampler() -> CodeSampler:
    return CodeSampler(CONFIG, SpeechSampling())


class Booth:
    """A batch, and streams in it."""

    def __init__(self, talker: Talker, decoder: IncrementalDecoder, sampler: CodeSampler) -> None:
        self._talker, self._decoder, self._sampler = talker, decoder, sampler
        self.make()

    def make(
        self,
        rows: int = 3,
        room: int = ROOM,
        graphed_room: int | None = None,
        drivers: Sequence[Driver | None] | None = None,
    ) -> None:
        codegen, decoding = drivers or (None, None)
        self.batch = Batch(
            *(self._talker, self._decoder, self._sampler, CONFIG, opening(self._talker)),
            rows=rows,
            room=room,
            graphed_room=graphed_room,
            codegen=codegen,
            decoding=decoding,
        )
        self.batch.capture()

    def open(self, seed: int, text: str | None = None, packets: tuple[int, ...] = RAMP) -> tuple[Stream, Listener]:
        listener = Listener()
        stream = self.batch.open(
            Numbers(), seed=seed, on_audio=listener.on_audio, on_end=listener.on_end, packets=packets
        )
        if text is not None:
            stream.write(text)
            stream.end()
        return stream, listener

    def run(self) -> None:
        while self.batch.step():
            pass

    def alone(self, seed: int, text: str, frames: int = ROOM) -> list[list[int]]:
        """What one stream says that has the network to itself, in as few steps as can be."""
        first, *rest = (int(word) for word in text.split())
        asked = prompt(CONFIG, ROLE, first, speaker="ryan")
        with torch.inference_mode():
            return list(
                speak(
                    *(self._talker, asked, [*rest, CONFIG.text_ids.tts_eos], self._sampler),
                    key=request_key(seed, ""),
                    frames=frames,
                )
            )

    def decoded(self, codes: list[list[int]]) -> Tensor:
        with torch.inference_mode():
            whole: Tensor = self._decoder.decode(torch.tensor(codes).T[None])[0]
        return whole


@pytest.fixture
def booth(talker: Talker, decoder: IncrementalDecoder, sampler: CodeSampler) -> Booth:
    return Booth(talker, decoder, sampler)


def test_streams_say_what_they_would_say_alone_and_sound_as_if_decoded_at_once(booth: Booth) -> None:
    opened = [booth.open(seed, text) for seed, text in enumerate(TEXTS)]  # one more than there are rows
    booth.run()
    for seed, (stream, listener) in enumerate(opened):
        assert stream.codes == booth.alone(seed, TEXTS[seed])[: len(stream.codes)]
        assert len(listener.audio) == 1920 * len(stream.codes)
        assert (listener.audio - booth.decoded(stream.codes)).abs().max() <= EXACT
    assert {listener.ending for _, listener in opened} == {Ending.FINISHED, Ending.LENGTH}, "both ends are tried here"


def test_the_first_packet_is_one_frame_and_later_ones_are_longer(booth: Booth) -> None:
    stream, listener = booth.open(0, TEXTS[0])
    booth.run()
    frames = [len(packet) // 1920 for packet in listener.packets]
    assert frames[:4] == [1, 2, 4, 8][: len(frames)]
    assert sum(frames) == len(stream.codes)


@pytest.mark.parametrize("packets", [(1,), (2,), (3,), (12,), RAMP])
def test_packets_change_neither_codes_nor_sound(booth: Booth, packets: tuple[int, ...]) -> None:
    stream, listener = booth.open(2, TEXTS[2], packets)
    booth.run()
    assert stream.codes == booth.alone(2, TEXTS[2])[: len(stream.codes)]
    assert (listener.audio - booth.decoded(stream.codes)).abs().max() <= EXACT


@pytest.mark.parametrize("steps_between", [0, 1, 5])
def test_text_that_comes_late_is_waited_for_and_changes_nothing(booth: Booth, steps_between: int) -> None:
    late, heard = booth.open(0)
    _, other = booth.open(1, TEXTS[1])
    for word in TEXTS[0].split():
        late.write(word)
        for _ in range(steps_between):
            booth.batch.step()
    frames = len(late.codes)
    booth.run()
    assert len(late.codes) <= max(frames, len(TEXTS[0].split())), "a word a frame, and not one more without text"
    late.end()
    booth.run()
    assert late.codes == booth.alone(0, TEXTS[0])[: len(late.codes)]
    assert heard.ending is not None
    assert other.ending is not None
    assert (heard.audio - booth.decoded(late.codes)).abs().max() <= EXACT


def close_after(booth: Booth, steps: Iterable[int]) -> None:
    for number in steps:
        closed, listener = booth.open(number, TEXTS[2])
        for _ in range(number):
            booth.batch.step()
        closed.close()
        said = len(closed.codes)
        booth.run()
        assert len(closed.codes) == said, "its work stops within a step"
        assert listener.ending is Ending.CLOSED


def test_a_stream_may_be_closed_before_any_step_and_leaves_nothing_in_its_row(booth: Booth) -> None:
    booth.make(rows=1)
    close_after(booth, range(8))
    stream, listener = booth.open(3, TEXTS[0])
    booth.run()
    assert stream.codes == booth.alone(3, TEXTS[0])[: len(stream.codes)]
    assert (listener.audio - booth.decoded(stream.codes)).abs().max() <= EXACT


def test_a_stream_that_waits_for_text_or_for_a_row_can_be_closed(booth: Booth) -> None:
    booth.make(rows=1)
    silent, first = booth.open(0)
    speaking, _ = booth.open(1, TEXTS[0])
    waiting, second = booth.open(2, TEXTS[1])
    booth.batch.step()
    silent.close()
    waiting.close()
    booth.run()
    assert first.ending is second.ending is Ending.CLOSED
    assert speaking.codes == booth.alone(1, TEXTS[0])[: len(speaking.codes)]


# Who comes first where there are more streams than rows


def assert_whole(booth: Booth, stream: Stream, listener: Listener, seed: int, text: str) -> None:
    """That it said what it says alone, up to its end, and sounded like that."""
    assert listener.ending in (Ending.FINISHED, Ending.LENGTH)
    assert stream.codes == booth.alone(seed, text)[: len(stream.codes)]
    assert (listener.audio - booth.decoded(stream.codes)).abs().max() <= EXACT


def test_committed_streams_come_before_speculative_ones_which_go_on_later(booth: Booth) -> None:
    booth.make(rows=1)
    guess, guessed = booth.open(2, TEXTS[2])
    guess.is_speculative = True
    for _ in range(5):
        booth.batch.step()
    other_guess, _ = booth.open(1, TEXTS[1])
    other_guess.is_speculative = True
    said, heard = booth.open(0, TEXTS[0])
    for frames in range(1, 5):
        booth.batch.step()
        assert (len(guess.codes), len(other_guess.codes), len(said.codes)) == (5, 0, frames)
    while not other_guess.codes:
        booth.batch.step()
    assert guessed.ending is not None, "who has begun goes on before others begin"
    booth.run()
    assert_whole(booth, said, heard, 0, TEXTS[0])
    assert_whole(booth, guess, guessed, 2, TEXTS[2])


def test_a_guess_that_comes_true_waits_no_longer(booth: Booth) -> None:
    booth.make(rows=1)
    first, second = (booth.open(seed, TEXTS[2])[0] for seed in (2, 3))
    first.is_speculative = second.is_speculative = True
    booth.batch.step()
    booth.batch.step()
    assert (len(first.codes), len(second.codes)) == (2, 0), "one guess does not displace another"
    second.is_speculative = False
    booth.batch.step()
    assert (len(first.codes), len(second.codes)) == (2, 1)


def test_nobody_who_is_listened_to_is_displaced(booth: Booth) -> None:
    booth.make(rows=1)
    first, _ = booth.open(0, TEXTS[0])
    booth.batch.step()
    second, _ = booth.open(1, TEXTS[1])
    booth.batch.step()
    assert (len(first.codes), len(second.codes)) == (2, 0)


def test_a_stream_that_is_far_enough_ahead_gives_its_row_to_one_that_waits(booth: Booth) -> None:
    booth.make(rows=1)
    slow, read = booth.open(2, TEXTS[2])
    for _ in range(6):
        booth.batch.step()
    slow.rests = True
    for _ in range(3):
        booth.batch.step()
    assert len(slow.codes) == 6
    other, heard = booth.open(1, TEXTS[1])
    booth.run()
    assert_whole(booth, other, heard, 1, TEXTS[1])
    assert len(slow.codes) == 6
    slow.rests = False
    booth.run()
    assert_whole(booth, slow, read, 2, TEXTS[2])


def test_a_stream_whose_text_is_late_gives_its_row_to_one_that_waits(booth: Booth) -> None:
    booth.make(rows=1)
    late, heard = booth.open(0)
    first, *rest = TEXTS[0].split()
    late.write(first)
    booth.run()
    other, other_heard = booth.open(1, TEXTS[1])
    booth.run()
    assert_whole(booth, other, other_heard, 1, TEXTS[1])
    assert len(late.codes) == 1
    late.write(" ".join(rest))
    late.end()
    booth.run()
    assert_whole(booth, late, heard, 0, TEXTS[0])


def test_who_gives_its_row_away_remembers_what_it_has_said(talker: Talker, decoder: IncrementalDecoder) -> None:
    """The penalty is such that no first code is chosen twice while others are likely at all."""
    booth = Booth(talker, decoder, CodeSampler(CONFIG, SpeechSampling(GREEDY, GREEDY, repetition_penalty=1e6)))
    booth.make(rows=1)
    guess, guessed = booth.open(2, TEXTS[2])
    guess.is_speculative = True
    for _ in range(6):
        booth.batch.step()
    said, heard = booth.open(0, TEXTS[0])
    booth.run()
    assert len({frame[0] for frame in guess.codes[:12]}) == 12
    assert_whole(booth, guess, guessed, 2, TEXTS[2])
    assert_whole(booth, said, heard, 0, TEXTS[0])


def test_who_waits_for_a_row_after_it_has_begun_can_be_closed(booth: Booth) -> None:
    booth.make(rows=1)
    guess, guessed = booth.open(2, TEXTS[2])
    guess.is_speculative = True
    booth.batch.step()
    said, heard = booth.open(0, TEXTS[0])
    booth.batch.step()
    guess.close()
    booth.run()
    assert guessed.ending is Ending.CLOSED
    assert len(guess.codes) == 1
    assert_whole(booth, said, heard, 0, TEXTS[0])


def test_the_first_packet_of_a_stream_does_not_wait_for_the_long_one_of_another(booth: Booth) -> None:
    booth.make(rows=2, room=200)
    order: list[tuple[str, int]] = []
    ahead, new = Numbers(), Numbers()

    def open_stream(name: str, feed: Numbers) -> Stream:
        stream = booth.batch.open(
            feed,
            seed=11,
            on_audio=lambda audio: order.append((name, len(audio) // 1920)),
            on_end=lambda _: None,
        )
        stream.write(TEXTS[0])
        stream.end()
        return stream

    first = open_stream("ahead", ahead)
    while len(first.codes) < sum(RAMP) - 1:
        assert booth.batch.step(), "this seed is to speak for long enough"
    open_stream("new", new)
    booth.batch.step()
    booth.batch.step()
    assert order[-2:] == [("new", 1), ("ahead", 12)]


def test_graphs_change_no_bit_and_beyond_their_room_steps_run_eagerly(booth: Booth) -> None:
    def say() -> list[tuple[list[list[int]], list[float]]]:
        opened = [booth.open(seed, text) for seed, text in enumerate(TEXTS)]
        booth.run()
        return [(stream.codes, listener.audio.tolist()) for stream, listener in opened]

    eager = say()
    assert all(set(graphed.misses) == {Miss.NO_DRIVER} for graphed in booth.batch.graphed)
    drivers = TracingDriver(), TracingDriver()
    booth.make(graphed_room=24, drivers=drivers)
    captures = [driver.captures for driver in drivers]
    assert captures == [2, len(RAMP)]
    assert say() == eager
    assert say() == eager, "a replay leaves the rows as it should"
    assert [driver.captures for driver in drivers] == captures, "nothing is captured later"
    assert all(graphed.replays for graphed in booth.batch.graphed)
    assert set(booth.batch.read.misses) == {Miss.POSITION}
    assert not booth.batch.choose.misses
    assert not booth.batch.decode.misses


def test_a_quantized_talker_knows_no_neighbours_either_and_its_graphs_change_no_bit(
    decoder: IncrementalDecoder, sampler: CodeSampler
) -> None:
    pytest.importorskip("torchao", reason="torchao is not installed")
    rounded = tiny_talker()
    quantize(rounded, "int8")
    booth = Booth(rounded, decoder, sampler)
    texts = {1: TEXTS[1], 3: TEXTS[3]}
    opened = [booth.open(seed, text) for seed, text in texts.items()]
    booth.run()
    for (seed, text), (stream, _) in zip(texts.items(), opened, strict=True):
        assert stream.codes == booth.alone(seed, text)[: len(stream.codes)]
    booth.make(drivers=(TracingDriver(), None))
    graphed = [booth.open(seed, text)[0] for seed, text in texts.items()]
    booth.run()
    assert booth.batch.read.replays
    assert [stream.codes for stream in graphed] == [stream.codes for stream, _ in opened]
