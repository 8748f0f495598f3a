"""A simulated call as a person writes it down: what the caller says and does, and what is expected (YAML).

Times are counted as the caller hears them. See docs/simulate.md for examples.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from switchroom.errors import BadInput, Fault

MAX_STEPS = 100
_DURATION = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|min)?\s*", re.IGNORECASE)
_UNITS = {"ms": 1.0, "s": 1000.0, "min": 60_000.0}


def _milliseconds(value: Any) -> Any:
    """`1500`, `1.5s`, `200ms`, `1min` as milliseconds."""
    if isinstance(value, str):
        if (found := _DURATION.fullmatch(value)) is None:
            raise ValueError("must be a duration such as 800ms, 1.5s or 1min")
        return float(found[1]) * _UNITS[(found[2] or "ms").lower()]
    return value


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _pattern(wanted: str) -> str | None:
    """The regular expression of a text between slashes."""
    return wanted[1:-1] if len(wanted) > 2 and wanted.startswith("/") and wanted.endswith("/") else None


def _findable(value: Any) -> Any:
    if isinstance(value, str) and (pattern := _pattern(value)) is not None:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{value} is no regular expression: {error}") from error
    return value


Milliseconds = Annotated[float, BeforeValidator(_milliseconds), Field(ge=0, le=600_000)]
Words = Annotated[list[Annotated[str, AfterValidator(_findable)]], BeforeValidator(_several)]
"""Each must be found, in any case; between slashes it is a regular expression."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AnswerExpected(_Model):
    """Of the agent's answer to a step."""

    within_ms: Annotated[Milliseconds | None, Field(gt=0)] = None
    """First sound of it after the caller's last word; for the first step, after the call was answered."""
    says: Words = []
    never_says: Words = []
    silent_within_ms: Annotated[Milliseconds | None, Field(gt=0)] = None
    """For a step that interrupts: from the caller's first sound to the agent's last."""
    silence: bool = False
    """No answer at all, for `within_ms` (5 s unless told)."""


class Step(_Model):
    """One thing that the caller does: exactly one of `say`, `audio`, `press`, `silence_ms`, `listen`, `hang_up`."""

    say: str | None = None
    """Spoken by the voice of this machine."""
    audio: Path | None = None
    """An audio file, relative to the scenario's."""
    press: Annotated[str | None, Field(pattern=r"^[0-9*#A-Da-d]{1,32}$")] = None
    silence_ms: Milliseconds | None = None
    """The caller says nothing for so long, whatever the agent says."""
    listen: Literal[True] | None = None
    """Hear the agent out: for its greeting."""
    hang_up: Literal[True] | None = None
    after_ms: Milliseconds = 0.0
    """A pause before it, once the agent is quiet."""
    barge_in_after_ms: Milliseconds | None = None
    """Do not wait until the agent is quiet: begin so long after its first sound."""
    expect: AnswerExpected = AnswerExpected()

    @model_validator(mode="after")
    def _one_action(self) -> Self:
        given = [name for name in ("say", "audio", "press", "silence_ms", "listen", "hang_up") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError("name exactly one of say, audio, press, silence_ms, listen, hang_up")
        if self.barge_in_after_ms is not None and given[0] not in ("say", "audio", "press"):
            raise ValueError("barge_in_after_ms is for say, audio and press")
        if self.expect.silent_within_ms is not None and self.barge_in_after_ms is None:
            raise ValueError("expect.silent_within_ms needs barge_in_after_ms")
        return self

    @property
    def title(self) -> str:
        """How a report calls it."""
        for name in ("say", "audio", "press"):
            if (value := getattr(self, name)) is not None:
                return f"{name}: {value.name if isinstance(value, Path) else value}"
        if self.silence_ms:
            return f"silence of {self.silence_ms:g} ms"
        return "hang_up" if self.hang_up else "listen"


class CallExpected(_Model):
    """Of the whole call and its record."""

    end_reason: str | None = None
    """`completed`, `transferred`, `timeout`, … as on the record."""
    route: list[str] = []
    """Nodes (labels or IDs) that the flow went through, in this order; others may lie between."""
    never: list[str] = []
    """Nodes that it must not go through."""
    fields: dict[str, Annotated[Any, AfterValidator(_findable)]] = {}
    """Members of the flow's state at the end, by dotted path: `order`, `crm.tier`. A string between slashes is a
    regular expression."""
    says: Words = []
    turn_p95_ms: Annotated[Milliseconds | None, Field(gt=0)] = None
    """95 % of the answers begin within this time, in the caller's ear."""
    within_ms: Annotated[Milliseconds | None, Field(gt=0)] = None
    """The whole call."""


class Noise(_Model):
    """White noise under all that the caller sends."""

    level_dbfs: float = Field(default=-50.0, ge=-90, le=-10)


class Scenario(_Model):
    """One simulated call."""

    name: str = ""
    flow: str = ""
    """The flow's ID, unless the command names one."""
    form: dict[str, Any] = {}
    """`ID` is made up unless given."""
    state: dict[str, Any] = {}
    noise: Noise | None = None
    steps: list[Step] = Field(min_length=1, max_length=MAX_STEPS)
    expect: CallExpected = CallExpected()
    patience_ms: Milliseconds = 20_000.0
    """How long the caller waits for an answer."""
    timeout_ms: Milliseconds = 180_000.0


def load_scenarios(path: Path) -> list[Scenario]:
    """The scenarios of a YAML file: one, or a list of them under `scenarios`. Blocking.

    Raises `BadInput`, whose detail names file and member.
    """
    try:
        drawn = yaml.safe_load(path.read_text())
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: {' '.join(str(error).split())}") from error
    several = isinstance(drawn, dict) and "scenarios" in drawn
    listed = drawn["scenarios"] if several else [drawn]
    if not isinstance(listed, list) or not listed:
        raise BadInput(f"{path}: scenarios: must be a list of at least one")
    found: list[Scenario] = []
    faults: list[Fault] = []
    for number, one in enumerate(listed):
        try:
            scenario = Scenario.model_validate(one)
        except ValidationError as error:
            prefix = f"scenarios.{number}." if several else ""
            for fault in error.errors(include_url=False):
                where = prefix + ".".join(str(part) for part in fault["loc"])
                place = f"{path.name}: {where}" if where else path.name
                faults.append(Fault(f"{place}: {_said(fault['type'], fault['msg'])}", where))
            continue
        name = scenario.name or (f"{path.stem} {number + 1}" if several else path.stem)
        steps = [_placed(step, path.parent) for step in scenario.steps]
        found.append(scenario.model_copy(update={"name": name, "steps": steps}))
    if faults:
        raise BadInput("; ".join(fault.detail for fault in faults), faults=faults)
    return found


def _said(kind: str, message: str) -> str:
    """A fault in the words of somebody who writes YAML."""
    if kind == "extra_forbidden":
        return "is not known here (docs/simulate.md has what is)"
    if kind == "model_type":
        return "must be a mapping: a scenario has `steps`"
    return message.removeprefix("Value error, ")


def _placed(step: Step, folder: Path) -> Step:
    return step if step.audio is None else step.model_copy(update={"audio": folder / step.audio})


def matches(wanted: str, text: str) -> bool:
    """Whether a text holds what a scenario expects."""
    if (pattern := _pattern(wanted)) is not None:
        return re.search(pattern, text, re.IGNORECASE) is not None
    return " ".join(wanted.lower().split()) in " ".join(text.lower().split())
