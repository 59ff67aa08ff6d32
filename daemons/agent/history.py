"""What was said in the call, as the language model is shown it: of the agent's words just those that were heard."""

from typing import Any

from daemons.agent.persona import Persona
from daemons.agent.said import Content, Said, Spoken

CUT_OFF = " …"  # shows the model that the caller did not hear the rest


class History:
    """A list of (caller, agent) turns; either side may be "" where only the other spoke.

    What the caller said is shown in words; only of the last turn, while nobody has written them down, as sound.
    """

    def __init__(self, persona: Persona) -> None:
        self._persona = persona
        self._turns: list[tuple[Said, str]] = []

    def add(self, caller: Said, agent: str, *, cut_off: bool = False) -> None:
        if not caller and not agent:
            return
        if self._turns and isinstance(before := self._turns[-1][0], Spoken):
            before.fall_silent()
        self._turns.append((caller, agent + CUT_OFF if cut_off and agent else agent))
        keep = self._persona.writing.history_turns
        if len(self._turns) > 2 * keep:  # seldom and by halves: each cut costs the model its cached prefix
            self._turns = self._turns[len(self._turns) - keep :]

    def messages(self, caller: Said) -> list[dict[str, Any]]:
        """OpenAI chat messages that ask for a reply to `caller`."""
        messages = [_message("system", self._persona.instructions.strip())]
        for example in self._persona.examples:
            messages += [_message("user", example.caller), _message("assistant", example.agent)]
        for said, answered in self._turns:
            told = said.told if isinstance(said, Spoken) else said
            messages += [_message("user", told)] if told else []
            messages += [_message("assistant", answered)] if answered else []
        return [*messages, _message("user", caller.asked if isinstance(caller, Spoken) else caller)]

    @property
    def is_in_words(self) -> bool:
        """No sound is in it, so that the model may read it ahead of the next turn."""
        return not any(isinstance(said.told, list) for said, _ in self._turns if isinstance(said, Spoken))


def _message(role: str, content: Content) -> dict[str, Any]:
    return {"role": role, "content": content}
