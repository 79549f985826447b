"""A stage of the pipeline: what it declares, what it is given, and what it returns.

A stage is a function of a StageContext that writes into `context.folder` and returns a StageResult:

    @declare(outputs=("model",), code_version="1", check=checks(SFTConfig))
    def stage(context: StageContext) -> StageResult:
        (config,) = context.parse(SFTConfig, output_dir=str(context.folder))
        ...
        return StageResult(metrics={"loss": 0.3}, seen=900, kept=812, filters=[...])

Nothing heavy is imported here: what a stage needs, its own module imports.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

DEFAULT_OUTPUTS = ("model", "dataset")
NOT_READ = ("output_dir", "logging_dir", "cache_dir", "output", "samples_output")
"""Settings whose paths are written to, or hold copies only."""


class PipelineError(ValueError):
    """A pipeline that cannot run as it is declared or called. The message says what to change."""


class StageError(RuntimeError):
    """A stage that did not end well; the message names it and says why."""


# --- what a stage is given --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StageInput:
    """A finished stage that another one depends on."""

    name: str
    folder: Path
    outputs: tuple[str, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)

    def path(self, output: str = "model") -> Path:
        """Where one of its outputs lies. Raises PipelineError when it has no such output."""
        if output not in self.outputs:
            raise PipelineError(
                f"stage {self.name!r} has no output {output!r}; it has {', '.join(self.outputs) or 'none'}"
            )
        return self.folder / output


@dataclass
class StageContext:
    """What a stage's function is given."""

    name: str
    title: str
    folder: Path
    """Its own, and there already; everything that it writes goes here."""
    settings: dict[str, Any]
    inputs: dict[str, StageInput]
    """Role -> stage; a stage that is named without a role plays that of its name."""
    files: dict[str, Path]
    """Files and folders from outside that were declared for it."""
    seed: int
    resume: bool
    """The folder holds what an earlier attempt with the same settings and inputs left: go on from its last checkpoint,
    or start again from the seed where there is none."""
    rank: int = 0
    processes: int = 1
    seeds: dict[str, int] = field(default_factory=dict)
    """The seeds that the stage's settings turned out to have, for its manifest."""

    @property
    def is_main_process(self) -> bool:
        return self.rank == 0

    def input(self, role: str, output: str = "model") -> Path:
        """Where an output of the stage in a role lies. Raises PipelineError for a role that nobody plays."""
        if role not in self.inputs:
            raise PipelineError(
                f"stage {self.name!r} needs a stage as its input {role!r}, and has {', '.join(self.inputs) or 'none'}; "
                f"write `inputs: {{{role}: NAME}}` into its entry"
            )
        return self.inputs[role].path(output)

    def parse(self, *dataclass_types: Any, **given: Any) -> tuple:
        """Settings as dataclasses: of the recipe that the setting `config` names, with the other settings and then
        `given` over it. The seed is the stage's where a dataclass has one; `seeds` notes all of theirs. Raises
        RecipeError."""
        from recipes.launch import prepare_ranks
        from recipes.parser import RecipeParser

        prepare_ranks()
        parser = RecipeParser(dataclass_types)
        seed = {"seed": self.seed} if "seed" in parser.hints else {}
        configs = parser.parse_settings(full_config(self.settings) | seed | given, f"stage {self.name!r}")
        self.seeds |= seeds_in(configs)
        return configs


def seeds_in(configs: Iterable[Any]) -> dict[str, int]:
    """The seeds among the fields of dataclasses: `seed`, `problem_seed`, `eval_seed`, …"""
    values = {item.name: getattr(config, item.name) for config in configs for item in fields(config)}
    return {name: value for name, value in values.items() if name.endswith("seed") and isinstance(value, int)}


@dataclass
class StageResult:
    """What a stage's function returns."""

    metrics: dict[str, Any] = field(default_factory=dict)
    """The most telling first: the summary shows four numbers."""
    seen: int | None = None
    kept: int | None = None
    """Rows before and after the filters. Keeping none is an error."""
    filters: list[dict[str, Any]] = field(default_factory=list)
    """[{"name", "dropped", "examples": [text, …]}], in the order in which they were applied."""
    outputs: tuple[str, ...] | None = None
    """Files and folders it wrote, relative to its folder, where they are not those declared."""
    seeds: dict[str, int] = field(default_factory=dict)
    """Those that it used beside the stage's and its settings'."""
    notes: list[str] = field(default_factory=list)
    """Warnings for whoever reads the manifest."""
    interrupted: bool = False
    """It ended early, at the user's wish, with a checkpoint: it is not finished."""


# --- what a stage declares --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Declaration:
    """What a stage's function says of itself, see `declare`."""

    outputs: tuple[str, ...] | None = None
    code_version: str = "1"
    files: Callable[[dict[str, Any]], Mapping[str, str | Path]] | None = None
    check: Callable[[dict[str, Any]], None] | None = None
    replaced: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def declare(
    *,
    outputs: tuple[str, ...] | None = None,
    code_version: str = "1",
    files: Callable[[dict[str, Any]], Mapping[str, str | Path]] | None = None,
    check: Callable[[dict[str, Any]], None] | None = None,
    replaced: Mapping[str, tuple[str, ...]] | None = None,
) -> Callable[[Callable], Callable]:
    """A decorator for a stage's function.

    outputs: what it writes, relative to its folder; None takes `model` and `dataset`, those that are there at the end.
    code_version: another one runs the stage again; change it when the code's results change.
    files: settings -> further inputs from outside, name -> path; they are hashed.
    check: settings -> None, called before any stage runs; raises ValueError for settings that cannot be meant.
    replaced: role -> dotted settings that the function takes from the input in that role instead. A path that stands
    there, such as a recipe's default, is then not read, and so no input. A function that says so takes inputs in these
    roles and in no other.
    """

    def mark(function: Callable) -> Callable:
        function.declaration = Declaration(outputs, code_version, files, check, replaced or {})  # type: ignore[attr-defined]
        return function

    return mark


def declaration_of(function: Callable) -> Declaration:
    return getattr(function, "declaration", Declaration())


def checks(*dataclass_types: Any) -> Callable[[dict[str, Any]], None]:
    """A `check` for settings that become these dataclasses: it finds unknown keys, wrong types, and what a dataclass
    refuses. TrainingArguments are not made, since they look at the machine, which may not be the one that will run."""

    def check(settings: dict[str, Any]) -> None:
        from transformers import TrainingArguments

        from recipes.parser import RecipeParser

        config, sources = sourced_config(settings)
        config = RecipeParser(dataclass_types).checked(config, "its settings", sources)
        for kind in dataclass_types:
            needed = {item.name for item in fields(kind) if item.default is item.default_factory is MISSING}
            if not issubclass(kind, TrainingArguments) and needed <= config.keys():
                kind(**{item.name: config[item.name] for item in fields(kind) if item.name in config})

    return check


def full_config(settings: dict[str, Any]) -> dict[str, Any]:
    """The recipe that the setting `config` names, with the other settings over it. Raises RecipeError."""
    return sourced_config(settings)[0]


def sourced_config(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """As full_config, and the file of each setting that comes from one. `config` may be a list: later ones win."""
    config = settings.get("config")
    paths = [config] if isinstance(config, str) else config
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        return dict(settings), {}
    from recipes.parser import load_recipe

    content, sources = load_recipe(paths)
    own = {key: value for key, value in settings.items() if key != "config"}
    return content | own, {key: file for key, file in sources.items() if key not in own}


def paths_in(settings: dict[str, Any], replaced: Sequence[str] = ()) -> dict[str, str]:
    """Settings that name a file or folder that is there, also those of a recipe among them, and what it extends: dotted
    key -> path.

    What a stage does not read is left out: of the recipe `config` what a later file or another setting stands over,
    and the settings `replaced`, dotted. A path has a slash in it (`data/base`): a plain word is never taken for one.
    """
    from recipes.parser import RecipeError, load_yaml, recipe_layers

    found = _named_paths(settings)
    with contextlib.suppress(RecipeError):  # the stage says what is wrong with its recipe
        content, sources = sourced_config(settings)
        found |= _named_paths({key: content[key] for key in sources}, "config:")
    found = {key: path for key, path in found.items() if key.removeprefix("config:") not in replaced}
    for key, path in list(found.items()):
        if path.endswith((".yaml", ".yml")) and Path(path).is_file():
            with contextlib.suppress(RecipeError):
                found |= {f"{key}:extends:{file}": file for file, _ in recipe_layers([path])[:-1]}
                if key.split(".")[0] != "config":
                    found |= {f"{key}:{name}": inner for name, inner in paths_in(load_yaml(path)).items()}
    return found


def _named_paths(settings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    return {
        f"{prefix}{key}": value
        for key, value in _flat(settings)
        if "/" in value and key.split(".")[-1] not in NOT_READ and os.path.exists(value)
    }


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if isinstance(key, str):  # a mapping may be keyed by paths, as decontaminate_against is
            yield f"{prefix}{key}", key
        if isinstance(item, str):
            yield f"{prefix}{key}", item
        else:
            yield from _flat(item, f"{prefix}{key}.")


def dotted_path(function: Callable) -> str:
    """`package.module:function`; load_function finds it there if it stands at the top of its module."""
    return f"{function.__module__}:{getattr(function, '__qualname__', type(function).__qualname__)}"


def load_function(path: str) -> Callable:
    """The function at `package.module:function`. Raises PipelineError, which names the nearest."""
    module_name, colon, name = path.partition(":")
    if not colon or not module_name or module_name.startswith(".") or not name:
        raise PipelineError(f"a recipe is written package.module:function, got {path!r}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise PipelineError(f"recipe {path!r}: there is no module {missing!r}") from error
        raise PipelineError(f"recipe {path!r} needs the package {missing!r}, which is not installed") from error
    function = getattr(module, name, None)
    if not callable(function):
        near = difflib.get_close_matches(name, [key for key in vars(module) if not key.startswith("_")], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise PipelineError(f"recipe {path!r}: {module_name} has no function {name!r}{hint}")
    return function
