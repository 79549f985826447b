"""The declared graph of a pipeline: stages in order, and everything that decides what one of them results in."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recipes.manifest import Hashed, Manifest, hash_bytes, plain
from recipes.stage import PipelineError, StageContext, StageResult, declaration_of, dotted_path


@dataclass(kw_only=True)
class Stage:
    """A node of the graph. What is None comes from the function's own declaration (recipes.stage.declare)."""

    name: str
    run: Callable[[StageContext], StageResult]
    title: str = ""
    inputs: Sequence[str] | Mapping[str, str] = ()
    """Names of stages; or role -> name, where the function calls them by what they are for."""
    settings: dict[str, Any] = field(default_factory=dict)
    files: Mapping[str, str | Path] = field(default_factory=dict)
    """Files and folders from outside, name -> path. Settings that are paths are found without being listed here."""
    outputs: tuple[str, ...] | None = None
    code_version: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.name) or re.search(r"-\d+$", self.name):
            raise PipelineError(
                f"stage name {self.name!r}: it becomes a folder, so use letters, digits, - and _, and no -N at the "
                "end, which numbers folders of one name"
            )
        if isinstance(self.inputs, str):
            raise PipelineError(f"stage {self.name!r}: inputs is a list of stages, got the text {self.inputs!r}")
        for name in self.roles.values():
            if not isinstance(name, str):
                raise PipelineError(f"stage {self.name!r}: an input is the name of a stage, got {name!r}")
        declared = declaration_of(self.run)
        for role, name in self.roles.items():
            if declared.replaced and role not in declared.replaced:
                raise PipelineError(
                    f"stage {self.name!r} has an input as {role!r}, and {dotted_path(self.run)} takes "
                    f"{', '.join(declared.replaced)}; write inputs: {{{next(iter(declared.replaced))}: {name}}}"
                )
        self.outputs = declared.outputs if self.outputs is None else tuple(self.outputs)
        self.code_version = declared.code_version if self.code_version is None else str(self.code_version)
        self.settings = plain(self.settings)

    @property
    def roles(self) -> dict[str, str]:
        """Role -> name of the stage."""
        return dict(self.inputs) if isinstance(self.inputs, Mapping) else {name: name for name in self.inputs}

    @property
    def needs(self) -> list[str]:
        return list(dict.fromkeys(self.roles.values()))


def in_order(stages: Iterable[Stage]) -> list[Stage]:
    """The stages, each behind those it needs, otherwise as they were given. Raises PipelineError for a name that stands
    twice, an input that is no stage, and a cycle; it names them."""
    stages = list(stages)
    by_name: dict[str, Stage] = {}
    for stage in stages:
        if stage.name in by_name:
            raise PipelineError(f"two stages are called {stage.name!r}; give each a name of its own")
        by_name[stage.name] = stage
    for stage in stages:
        for name in stage.needs:
            if name not in by_name:
                raise PipelineError(
                    f"stage {stage.name!r} has the input {name!r}, which is no stage{near(name, by_name)}"
                )
    ordered: dict[str, Stage] = {}
    while len(ordered) < len(stages):
        ready = next((s for s in stages if s.name not in ordered and all(n in ordered for n in s.needs)), None)
        if ready is None:
            raise PipelineError(f"the stages wait for each other: {' -> '.join(_cycle(by_name, ordered))}")
        ordered[ready.name] = ready
    return list(ordered.values())


def _cycle(by_name: dict[str, Stage], ordered: Iterable[str]) -> list[str]:
    """Names around a cycle, the first also last; there is one among the stages that are not in order."""
    path = [next(name for name in by_name if name not in ordered)]
    while path.count(path[-1]) < 2:
        path.append(next(name for name in by_name[path[-1]].needs if name not in ordered))
    return path[path.index(path[-1]) :][::-1]


def near(name: str, names: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest, or all there are."""
    found = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {found[0]!r}?" if found else f"; there are {', '.join(names)}"


# --- what a stage depends on ------------------------------------------------------------------------------------------


@dataclass
class Snapshot:
    """Everything that decides a stage's result, now."""

    recipe: str
    code_version: str
    seed: int
    settings: dict[str, Any]
    inputs: dict[str, Hashed]

    @property
    def fingerprint(self) -> str:
        parts = {
            "recipe": self.recipe, "code_version": self.code_version, "seed": self.seed, "settings": self.settings,
            "inputs": {name: found.hash for name, found in self.inputs.items()},
        }  # fmt: skip
        return hash_bytes(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass"))

    def changes_since(self, manifest: Manifest) -> list[str]:
        """What differs from when a manifest was begun, each with its old and new value."""
        changes = [
            f"{name}: {shown(old)} -> {shown(new)}"
            for name, old, new in (
                ("recipe", manifest.recipe, self.recipe),
                ("code version", manifest.code_version, self.code_version),
                ("seed", manifest.seed, self.seed),
            )
            if old != new
        ]
        old_settings, new_settings = _leaves(manifest.settings), _leaves(self.settings)
        for key in dict.fromkeys([*old_settings, *new_settings]):
            old, new = old_settings.get(key, "not set"), new_settings.get(key, "not set")
            if old != new:
                changes.append(f"setting {key}: {shown(old)} -> {shown(new)}")
        for name in dict.fromkeys([*manifest.inputs, *self.inputs]):
            if name not in self.inputs:
                changes.append(f"input {name} is gone")
            elif name not in manifest.inputs:
                changes.append(f"input {name} is new")
            elif manifest.inputs[name]["hash"] != self.inputs[name].hash:
                old_hash, found = manifest.inputs[name]["hash"], self.inputs[name]
                files = _differing(manifest.inputs[name].get("files", {}), found.files)
                changes.append(f"input {name} changed: {old_hash[:8]} -> {found.hash[:8]} ({files})")
        return changes


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; an empty mapping is a leaf."""
    if not isinstance(value, dict) or not value:
        return {prefix: value} if prefix else {}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= _leaves(item, f"{prefix}.{key}" if prefix else str(key))
    return found


def shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


def _differing(old: dict[str, str], new: dict[str, str]) -> str:
    names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
