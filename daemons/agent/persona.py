"""Who the agent is: `etc/persona.toml`, read anew for each call."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, ValidationInfo, model_validator

from daemons.agent import sounds
from daemons.agent.ending import Waits
from daemons.agent.mixer import Mixer, Sound
from daemons.audio import Samples
from daemons.errors import BadRequest, ConfigurationError

Lane = Literal["fast", "slow", "dual"]
Phrase = Annotated[str, Field(min_length=1, max_length=500)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Example(_Section):
    """One turn shown to the model before the call's own."""

    caller: Phrase
    agent: Phrase


class Writing(_Section):
    """How the language model is asked."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.2
    repeat_penalty: Annotated[float, Field(ge=0.5, le=2)] = 1.1
    max_tokens: Annotated[int, Field(ge=1, le=2000)] = 150
    max_sentences: Annotated[int, Field(ge=1, le=50)] = 2
    history_turns: Annotated[int, Field(ge=0, le=200)] = 12


class Turns(_Section):
    """When the caller is answered."""

    lane: Lane = "fast"  # answer; slow: understand, say nothing; dual: answer, and understand in the background
    speculation: bool = True  # replies are prepared before the caller's turn is surely over
    shortest_ms: Annotated[int, Field(ge=100, le=3000)] = 200  # silence that ends a turn that sounds finished
    longest_ms: Annotated[int, Field(ge=100, le=5000)] = 1500  # and one that does not

    @model_validator(mode="after")
    def _are_in_order(self) -> Self:
        if self.shortest_ms > self.longest_ms:
            raise ValueError("shortest_ms is longer than longest_ms")
        return self

    @property
    def waits(self) -> Waits:
        return Waits(self.shortest_ms, self.longest_ms)


class Phrases(_Section):
    """What the agent says without asking the model."""

    no_answer: Phrase
    hold: Annotated[tuple[Phrase, ...], Field(min_length=1)]  # one after the other, while a worker is being replaced
    still_there: Phrase  # asked once, when nobody has spoken for idle_s
    goodbye: Phrase  # said when nobody has answered that for as long again


def _read_sound(named: object, info: ValidationInfo) -> Samples | None:
    """The WAV file of that name, which lies beside the persona; "" is none."""
    if not isinstance(named, str):
        raise ValueError("the path of a WAV file is wanted")
    folder = info.context if isinstance(info.context, Path) else Path()
    try:
        return sounds.read_loop(folder / named) if named else None
    except BadRequest as error:
        raise ValueError(str(error)) from error


Loop = Annotated[Samples | None, PlainValidator(_read_sound)]
Gain = Annotated[float, Field(ge=-60, le=12)]


class Sounds(_Section):
    """What is heard beside the voice; nothing where no file is named."""

    ambience: Loop = None
    ambience_db: Gain = -12.0
    thinking: Loop = None
    thinking_db: Gain = -6.0

    def mixer(self) -> Mixer:
        return Mixer(_sound(self.ambience, self.ambience_db), _sound(self.thinking, self.thinking_db))


def _sound(loop: Samples | None, gain_db: float) -> Sound | None:
    return None if loop is None else Sound(loop, gain_db)


class Persona(_Section):
    greeting: Phrase
    instructions: Annotated[str, Field(min_length=1, max_length=4000)]
    examples: tuple[Example, ...] = ()
    writing: Writing = Writing()
    turns: Turns = Turns()
    phrases: Phrases
    sounds: Sounds = Sounds()


def load(path: Path) -> Persona:
    """Raises ConfigurationError when the file, or one that it names, is missing or wrong, naming what and where."""
    try:
        return Persona.model_validate(tomllib.loads(path.read_text(encoding="utf-8")), context=path.parent)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(at) for at in problem['loc'])}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise ConfigurationError(f"{path}: {problems}") from None
