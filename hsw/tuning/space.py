"""The search space: Hydra's sweeps as what a sampler draws from, and drawn values as Hydra's overrides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep

from hsw.config.arguments import prepare_overrides
from hsw.config.choices import load_choice, options
from hsw.config.settings import CHANGEABLE, root_key
from hsw.errors import ConfigError
from hsw.tuning.settings import Command, plain_value, refuse_swept

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_FORMS = "tag(log, interval(1e-5, 1e-2)), int(interval(1, 10)), range(32, 257, 32) or choice(64, 128)"


@dataclass(frozen=True)
class Parameter:
    """What varies.

    Attributes:
        key: As it is typed, + and all.
        kind: Of its values: float, int, or choice, whose values are texts in Hydra's grammar.
        low, high: The ends, both included.
        step: Between values, from low on; None is as fine as it goes.
        log: Orders of magnitude are equally likely.
        choices: Of a choice.
    """

    key: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    choices: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.key.lstrip("+")

    def distribution(self) -> BaseDistribution:
        """As Optuna has it."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.kind == "choice":
            return CategoricalDistribution(self.choices)
        if self.kind == "int":
            return IntDistribution(int(self.low), int(self.high), self.log, int(self.step or 1))
        return FloatDistribution(self.low, self.high, self.log, self.step)

    def override(self, value: Any) -> str:
        """A value on a command line."""
        return f"{self.key}={value if self.kind == 'choice' else repr(value)}"

    def extremes(self) -> list[Any]:
        """The values at which a check would fail first: the ends, or every choice."""
        if self.kind == "choice":
            return list(self.choices)
        ends = (self.low, self.high)
        return list(dict.fromkeys(int(end) if self.kind == "int" else float(end) for end in ends))

    def values(self) -> list[Any] | None:
        """All of them, one by one; None of an interval."""
        if self.kind == "choice":
            return list(self.choices)
        if self.step is None:
            return None
        count = round((self.high - self.low) / self.step) + 1
        numbers = (self.low + n * self.step for n in range(count))
        return [int(number) if self.kind == "int" else float(number) for number in numbers]

    def as_text(self) -> str:
        """In Hydra's grammar, for people and for comparing studies."""
        if self.kind == "choice":
            return f"choice({', '.join(self.choices)})"
        ends = (int(self.low), int(self.high)) if self.kind == "int" else (self.low, self.high)
        text = f"interval({ends[0]!r}, {ends[1]!r})" + (f" by {self.step:g}" if self.step not in (None, 1.0) else "")
        return f"log {text}" if self.log else text


def read_space(command: Command, agent: str) -> list[Parameter]:
    """What varies: of the command line, else of conf/space/<agent>.yaml; with tune.space of both.

    A value on the command line wins over the file: a key that is fixed there does not vary.

    Args:
        command: The command line.
        agent: The choice of agent.

    Raises:
        ConfigError: If nothing varies, or what varies is no parameter or no sweep.
    """
    swept = {_key_of(override): override for override in command.swept}
    name = command.settings.space or (None if swept else agent)
    if name is not None:
        fixed = {_key_of(override) for override in command.overrides}
        for key, text in _file(name, agent, named=command.settings.space is not None).items():
            if key not in fixed:
                swept.setdefault(key, prepare_overrides([f"{key}={text}"])[0])
    if not swept:
        raise ConfigError(f"nothing varies; say what to try, such as 'algorithm.lr={_FORMS.partition('), ')[0]})'")
    refuse_swept(list(swept))
    for key in swept:
        if root_key(key) in (*CHANGEABLE, "tag"):
            raise ConfigError(f"{key} cannot be varied: it says how a run computes or reports, not what it learns")
    parser = OverridesParser.create()
    return [_parameter(parser, override) for override in swept.values()]


def _file(name: str, agent: str, named: bool) -> dict[str, str]:
    """What conf/space/<name>.yaml says, or one along the search path."""
    content = load_choice("space", name)
    if content is None:
        known = ", ".join(options("space"))
        asked = f"there is no tune.space={name}" if named else f"there is no conf/space/{agent}.yaml"
        raise ConfigError(f"{asked} (there are {known}); say on the command line what to vary, such as {_example()}")
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(content, resolve=False)
    if not isinstance(plain, dict) or not all(isinstance(text, str) for text in plain.values()):
        raise ConfigError(f"space {name} must map keys to sweeps as text, such as algorithm.lr: {_FORMS[:32]}")
    return {str(key): str(text) for key, text in plain.items()}


def _example() -> str:
    return "'algorithm.lr=tag(log, interval(1e-5, 1e-2))'"


def _key_of(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _parameter(parser: OverridesParser, text: str) -> Parameter:
    override = parser.parse_override(text)
    key, value, told = override.get_key_element(), override.value(), text.partition("=")[2]
    if isinstance(value, IntervalSweep):
        return _interval(key, value, told)
    if isinstance(value, RangeSweep):
        numbers = [float(number) for number in override.sweep_string_iterator()] if value.step else []
        if not numbers:
            raise ConfigError(f"{key}={told} has no values; range(start, stop, step) goes from start to before stop")
        numbers.sort()
        whole = all(isinstance(number, int) for number in (value.start, value.stop, value.step))
        step = abs(float(value.step)) if len(numbers) > 1 else 1.0
        return Parameter(key, "int" if whole else "float", numbers[0], numbers[-1], step)
    if isinstance(value, ChoiceSweep):
        choices = tuple(str(choice) for choice in override.sweep_string_iterator())
        if len(set(choices)) < len(choices):
            raise ConfigError(f"{key}={told} has a choice twice")
        return Parameter(key, "choice", choices=choices)
    raise ConfigError(f"{key}={told} does not say which values to try; use {_FORMS}")


def _interval(key: str, value: IntervalSweep, told: str) -> Parameter:
    low, high = value.start, value.end
    if low is None or high is None or not math.isfinite(low) or not math.isfinite(high) or low > high:
        raise ConfigError(f"{key}={told} must go from a lower to a higher finite number")
    unknown = sorted(value.tags - {"log", "int"})
    if unknown:
        raise ConfigError(f"{key}={told} has the tag {unknown[0]}; there are log and int")
    log = "log" in value.tags
    whole = "int" in value.tags or (isinstance(low, int) and isinstance(high, int))
    if whole and (low != int(low) or high != int(high)):
        raise ConfigError(f"{key}={told} must have whole numbers at its ends, as it is of whole numbers")
    if log and low < (1 if whole else math.ulp(0.0)):
        raise ConfigError(f"{key}={told} must begin above 0, as it is of orders of magnitude")
    return Parameter(key, "int" if whole else "float", float(low), float(high), 1.0 if whole else None, log)


def grid(space: Sequence[Parameter]) -> list[dict[str, Any]]:
    """Every combination, the last parameter changing fastest.

    Raises:
        ConfigError: If a parameter is an interval.
    """
    for parameter in space:
        if parameter.values() is None:
            raise ConfigError(
                f"tune.sampler=grid tries values one by one, and {parameter.name} is an interval; list them: "
                f"{parameter.name}=choice(...) or range(...), or take another sampler"
            )
    rows = itertools.product(*(parameter.values() or () for parameter in space))
    return [dict(zip((parameter.name for parameter in space), row, strict=True)) for row in rows]


def overrides_of(space: Sequence[Parameter], values: Mapping[str, Any]) -> list[str]:
    """A trial's values on a command line."""
    return [parameter.override(values[parameter.name]) for parameter in space]


def value_of(text: str) -> Any:
    """What a value in Hydra's grammar stands for."""
    return plain_value(OverridesParser.create().parse_override(f"value={text}").value())
