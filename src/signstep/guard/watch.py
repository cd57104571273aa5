"""What is remembered of each client, and the alarms that follow from it; bounded, whoever comes.

Clients are dropped least recently used first, once their states take more than the cap. A flood of 10^6 identities
therefore costs its cap and no more, and makes the guard forget those who are silent meanwhile: the store does not.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from signstep.errors import InputError
from signstep.guard.charts import Chart
from signstep.guard.drift import Drift
from signstep.guard.fingerprints import Array, Fingerprints, Similar
from signstep.guard.walks import Sketch, Walks
from signstep.messages import Arg

KINDS: dict[str, str] = {
    "flags": "a client's inputs are flagged more often than the calibration allows",
    "unsure": "a client's inputs get answers of low confidence more often than clean ones do",
    "steps": "a client's inputs follow each other like those of a search",
    "similar": "a client sends many inputs that are nearly the same",
    "shared": "clients send many inputs that are nearly those of others",
    "boundary": "nearly the same inputs got different answers, many times",
    "drift": "the stream as a whole is not what it was",
    "breaker": "most clients are flagged: refusing was stopped, or goes on again",
    "store": "decisions are not being stored",
}
"""Every kind of alarm."""

_PLACES = {kind: place for place, kind in enumerate(KINDS)}
STATE_BYTES = 1600  # of one client at most, measured by the tests
_HELD = 200  # inputs that a client stays under an alarm
ODD_STEP = 0.01
"""p-value at which a step is odd; steps share their ends, so that odd ones come in pairs more often than by chance."""


@dataclass(frozen=True)
class Alarm:
    """Something that a person should know.

    Attributes:
        kind: one of `KINDS`.
        client: whom it is about; "" for the stream.
        text: what was counted.
        decision: the id of the decision at which it came.
    """

    kind: str
    client: str
    text: str
    decision: str = ""


@dataclass(frozen=True)
class Watching:
    """How much is watched.

    Attributes:
        flags: the chart of flags.
        unsure: the chart of low confidence; None without a threshold for it.
        steps: the chart of steps; None where clean steps are not known.
        similar: inputs nearly alike from one client that are an alarm.
        shared: inputs nearly those of others that are an alarm, over all clients.
        boundary: pairs nearly alike with different answers that are an alarm.
        memory: bytes for the states of clients.
    """

    flags: Chart
    unsure: Chart | None = None
    steps: Chart | None = None
    similar: int = 25
    shared: int = 50
    boundary: int = 5
    memory: int = 64 * 2**20

    def __post_init__(self) -> None:
        for name, least in (("similar", 2), ("shared", 2), ("boundary", 1), ("memory", STATE_BYTES)):
            if getattr(self, name) < least:
                raise InputError(Arg(name, getattr(self, name)), remedy=f"pass a whole number from {least} on")


@dataclass(slots=True)
class State:
    """Of one client."""

    flags: int = 0
    unsure: int = 0
    steps: int = 0
    similar: int = 0
    boundary: int = 0
    inputs: int = 0
    flagged: int = 0
    last: Sketch | None = None
    step: Sketch | None = None
    alarm: str | None = None
    until: int = 0
    raised: int = 0


@dataclass(frozen=True)
class Input:
    """What the watch is told of one input.

    Attributes:
        x: it, (...).
        client: who asked.
        flagged: by detector or input checks.
        unsure: whether its confidence is low.
        label: the answer, or None.
        score: for drift, such as the p-value; None for none.
        decision: its id.
    """

    x: Array
    client: str
    flagged: bool
    unsure: bool = False
    label: int | None = None
    score: float | None = None
    decision: str = ""


@dataclass
class Watch:
    """The states of all clients.

    Attributes:
        watching: how much is watched.
        prints: of the last inputs of all.
        walks: of clean traffic, or None.
        drift: of the stream.
    """

    watching: Watching
    prints: Fingerprints
    walks: Walks | None = None
    drift: Drift | None = None
    shared: int = 0
    _states: "OrderedDict[str, State]" = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._states)

    def alarm_of(self, client: str) -> str | None:
        """The kind of alarm that a client is under, or None."""
        state = self._states.get(client)
        return None if state is None or state.inputs >= state.until else state.alarm

    def suspicion(self, client: str) -> float:
        """The share of the way to an alarm that a client's chart of flags has gone."""
        state = self._states.get(client)
        return 0.0 if state is None else state.flags / self.watching.flags.height

    def saw(self, one: Input) -> list[Alarm]:
        """Count an input, and tell what it sets off.

        The very same input from the same client counts once: who asks again learns nothing and gives nothing away. An
        alarm of one kind about one client comes once until that client has been quiet for 200 inputs.
        """
        similar = self.prints.saw(one.x, one.client, one.label)
        state = self._states.pop(one.client, None) or State()
        self._states[one.client] = state
        if (len(self._states) + 1) * STATE_BYTES > self.watching.memory:
            self._states.popitem(last=False)
        state.inputs += 1
        if similar is not None and similar.exact and similar.client == one.client:
            return []
        state.flagged += one.flagged
        alarms = [*self._charted(state, one), *self._compared(state, one, similar), *self._drifted(one)]
        return [alarm for alarm in alarms if self._new(state, alarm)]

    @staticmethod
    def _new(state: State, alarm: Alarm) -> bool:
        """Whether a client was not under this alarm before; those about the stream are always new."""
        if not alarm.client:
            return True
        if state.inputs >= state.until:
            state.raised = 0
        state.alarm, state.until = alarm.kind, state.inputs + _HELD
        bit = 1 << _PLACES[alarm.kind]
        new = not state.raised & bit
        state.raised |= bit
        return new

    def _charted(self, state: State, one: Input) -> list[Alarm]:
        found, watching = [], self.watching
        state.flags, over = watching.flags.after(state.flags, one.flagged)
        if over:
            said = f"{state.flagged} of {state.inputs} inputs were flagged"
            found.append(Alarm("flags", one.client, said, one.decision))
        if watching.unsure is not None:
            state.unsure, over = watching.unsure.after(state.unsure, one.unsure)
            if over:
                found.append(Alarm("unsure", one.client, "low confidence came thick", one.decision))
        if watching.steps is not None and self.walks is not None and one.x.size == self.walks.size:
            sketch = self.walks.sketches(one.x[None])[0]
            if state.last is not None:
                step = sketch - state.last
                odd = self.walks.p_value(step, state.step) <= ODD_STEP
                state.step = step
                state.steps, over = watching.steps.after(state.steps, odd)
                if over:
                    found.append(Alarm("steps", one.client, "short or straight steps came thick", one.decision))
            state.last = sketch
        return found

    def _compared(self, state: State, one: Input, similar: Similar | None) -> list[Alarm]:
        if similar is None:
            return []
        found, watching = [], self.watching
        state.similar += 1
        if state.similar % watching.similar == 0:
            said = f"{state.similar} of {state.inputs} inputs were nearly alike"
            found.append(Alarm("similar", one.client, said, one.decision))
        if similar.client != one.client:
            self.shared += 1
            if self.shared % watching.shared == 0:
                found.append(Alarm("shared", "", f"{self.shared} inputs were nearly those of others", one.decision))
        if similar.label is not None and one.label is not None and similar.label != one.label:
            state.boundary += 1
            if state.boundary % watching.boundary == 0:
                said = f"{state.boundary} inputs nearly alike got different answers"
                found.append(Alarm("boundary", one.client, said, one.decision))
        return found

    def _drifted(self, one: Input) -> list[Alarm]:
        if self.drift is None or one.score is None or not self.drift.saw(one.score):
            return []
        said = f"the capital of the martingale passed {self.drift.capital:.0f}"
        return [Alarm("drift", "", said, one.decision)]
