"""What was said in the call, as the language model is shown it: of the agent's words just those that were heard."""

from daemons.agent.persona import Persona

CUT_OFF = " …"  # shows the model that the caller did not hear the rest


class History:
    """A list of (caller, agent) turns; either side may be "" where only the other spoke."""

    def __init__(self, persona: Persona) -> None:
        self._persona = persona
        self._turns: list[tuple[str, str]] = []

    def add(self, caller: str, agent: str, *, cut_off: bool = False) -> None:
        if caller or agent:
            self._turns.append((caller, agent + CUT_OFF if cut_off and agent else agent))
        keep = self._persona.writing.history_turns
        if len(self._turns) > 2 * keep:  # seldom and by halves: each cut costs the model its cached prefix
            self._turns = self._turns[len(self._turns) - keep :]

    def messages(self, caller: str) -> list[dict[str, str]]:
        """OpenAI chat messages that ask for a reply to `caller`."""
        turns = [(example.caller, example.agent) for example in self._persona.examples] + self._turns
        messages = [{"role": "system", "content": self._persona.instructions.strip()}]
        for said, answered in [*turns, (caller, "")]:
            messages += [{"role": "user", "content": said}] if said else []
            messages += [{"role": "assistant", "content": answered}] if answered else []
        return messages
