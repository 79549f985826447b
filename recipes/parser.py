"""YAML and command line to checked dataclasses: TRL's parser, made strict.

What TRL's lets through and this one stops: `1e-5` read as text, a key that no dataclass knows (the nearest is named), a
value of the wrong type, an abbreviated flag. A mapping is JSON on the command line: `--rewards '{"accuracy": 1.0}'`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import functools
import json
import os
import re
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from trl import TrlParser

from recipes.hints import fits, readable
from recipes.launch import prepare_ranks


class RecipeError(ValueError):
    """A recipe or command line that cannot be run as written. The message says what to change."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2 floats: PyYAML follows YAML 1.1, where `1e-5` lacks a dot and is text. A key that stands twice is an
    error: PyYAML keeps the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Puts the text "1e-5" into quotes, so that _Loader reads a text."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
        list("-+0123456789."),
    )


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, over those of the files that its key `extends` names. Errors as load_recipe."""
    return load_recipe([path])[0]


def load_recipe(paths: Sequence[str | Path]) -> tuple[dict[str, Any], dict[str, str]]:
    """Settings of YAML files, and the file that each comes from. Of a key that stands in several files the last one's
    value holds, whole: mappings are not mixed.

    Raises RecipeError for a file that is missing, malformed or no mapping, and for files that extend each other.
    """
    settings: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for file, content in recipe_layers(paths):
        settings |= content
        sources |= dict.fromkeys(content, file)
    return settings, sources


def recipe_layers(paths: Sequence[str | Path]) -> list[tuple[str, dict[str, Any]]]:
    """The files of a recipe, each with its own settings, in the order in which they are laid over each other.

    `extends: PATH`, or a list of them, relative to the file, lays a file over others. One that is reached by two ways
    has its place where it came first, so that it never undoes what extends it.
    """
    layers: dict[Path, tuple[str, dict[str, Any]]] = {}

    def add(path: str | Path, below: tuple[Path, ...]) -> None:
        file = Path(os.path.normpath(path))
        if (here := file.resolve()) in below:
            circle = [*below[below.index(here) :], here]
            raise RecipeError(f"{' -> '.join(link.name for link in circle)}: these recipes extend each other")
        if here in layers:
            return
        try:
            content = _read_mapping(file)
        except RecipeError as error:
            raise RecipeError(f"{error} ({below[-1].name} extends it)" if below else str(error)) from error
        parents = content.pop("extends", None) or []
        parents = [parents] if isinstance(parents, str) else parents
        if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
            raise RecipeError(
                f"{file}: extends expects a path or a list of paths, relative to this file; got {parents!r}"
            )
        for parent in parents:
            add(file.parent / parent, (*below, here))
        layers[here] = (str(file), content)

    for path in paths:
        add(path, ())
    return list(layers.values())


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"the recipe {path} is not UTF-8 text: {error}") from error
    try:
        content = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(
            f"{path} must hold a mapping of settings, one `key: value` a line; it holds {type(content).__name__}"
        )
    return content


def read_value(text: str) -> Any:
    """A value as YAML reads it: 1e-5 is a number, [en, ko] a list, null nothing. Raises RecipeError."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise RecipeError(f"{text!r} is not a value that YAML can read: {error}") from error


def dump_yaml(content: dict[str, Any]) -> str:
    """YAML that load_yaml reads back as it was."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class RecipeParser(TrlParser):
    """`parse_args_and_config()` as TRL's, with the checks above."""

    def __init__(self, dataclass_types: Any, **kwargs: Any):
        super().__init__(dataclass_types, allow_abbrev=False, **kwargs)
        self.hints: dict[str, Any] = {}
        for dataclass_type in self.dataclass_types:
            hints = typing.get_type_hints(dataclass_type)
            self.hints |= {field.name: hints[field.name] for field in dataclasses.fields(dataclass_type) if field.init}
        for action in self._actions:
            hint = self.hints.get(action.dest)
            if "dict" in str(hint):
                action.type = functools.partial(_mapping, hint=hint)

    def parse_args_and_config(self, args: list[str] | None = None, **_: Any) -> tuple:
        """The dataclasses, from `--config FILE` (several: later ones win) and the flags that override it. Raises
        RecipeError."""
        paths, args = config_paths(list(sys.argv[1:] if args is None else args))
        if paths:
            settings, sources = load_recipe(paths)
            self.set_defaults_with_config(**self.checked(settings, paths[-1], sources))
        *parsed, unknown = self.parse_args_into_dataclasses(
            args=args, return_remaining_strings=True, look_for_args_file=False
        )
        if unknown:
            raise RecipeError(self._unknown(unknown[0].lstrip("-").split("=")[0].replace("-", "_"), "the command line"))
        return tuple(parsed)

    def parse_settings(self, settings: dict[str, Any], source: str | Path) -> tuple:
        """The dataclasses from a mapping instead of a file; `source` is what errors call it. Raises RecipeError."""
        self.set_defaults_with_config(**self.checked(settings, source))
        return tuple(self.parse_args_into_dataclasses(args=[], look_for_args_file=False))

    def checked(
        self, settings: dict[str, Any], source: str | Path, sources: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The settings, once every key is known and every value is of its field's type. Errors name the key's own
        source, or `source`.

        A run's config.yaml is a recipe too: what it says under `provenance` sets nothing and is left out.
        """
        settings = {key: value for key, value in settings.items() if key != "provenance"}
        for key, value in settings.items():
            where = (sources or {}).get(key, source)
            if key == "scale_rewards" and isinstance(value, bool):  # TRL takes true and false for "group" and "none"
                continue
            if key not in self.hints:
                raise RecipeError(self._unknown(str(key), where))
            if not fits(value, self.hints[key]):
                raise RecipeError(
                    f"{where}: {key} expects {readable(self.hints[key])}, got {value!r} ({type(value).__name__})"
                )
        return settings

    def _unknown(self, key: str, source: str | Path) -> str:
        near = difflib.get_close_matches(key, self.hints, n=1)
        hint = f"did you mean {near[0]}?" if near else "see `--help` for the settings that exist"
        if key in self.hints:  # as bare words, or as a pipeline's stage.key=value
            hint = f"a flag begins with two dashes: --{key} VALUE"
        return f"unknown setting {key!r} in {source}; {hint}"

    def error(self, message: str) -> typing.NoReturn:
        raise RecipeError(message)


def config_paths(args: list[str]) -> tuple[list[str], list[str]]:
    """The paths behind every `--config` (or in `--config=PATH`), and the other arguments. Raises RecipeError for a
    `--config` without one."""
    paths: list[str] = []
    others: list[str] = []
    rest = iter(args)
    for arg in rest:
        flag, equals, path = arg.partition("=")
        if flag != "--config":
            others.append(arg)
            continue
        path = path if equals else next(rest, "")
        if not path or path.startswith("--"):
            raise RecipeError("--config needs the path of a YAML file behind it")
        paths.append(path)
    return paths, others


def _mapping(text: str, hint: Any) -> dict | str:
    """A mapping given as JSON; text as it is, such as DeepSpeed's `ds.json`, where the setting takes a path as well.

    Its errors are argparse's, which shows no other's message.
    """
    if fits(text, hint) and not text.lstrip().startswith("{"):
        return text
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(
            f"expected a JSON object such as '{{\"accuracy\": 1.0}}', got {text!r}: {error}"
        ) from error
    if not isinstance(value, dict) or not fits(value, hint):
        raise argparse.ArgumentTypeError(f"expected {readable(hint)} as a JSON object, got {text!r}")
    return value


def parse(*dataclass_types: Any, args: list[str] | None = None) -> tuple:
    """The settings of a recipe's command; prints a readable message and exits with status 2 when they are wrong."""
    prepare_ranks()
    try:
        return RecipeParser(dataclass_types).parse_args_and_config(args)
    except (RecipeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Show an error that the user can mend as one line and exit with status 2; R1LAB_DEBUG=1 shows the traceback.

    Ctrl-C, where nothing else takes care of it, exits with status 130, as a shell's own commands do.
    """
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("R1LAB_DEBUG"):
            raise
        print(f"error: {error}\n(R1LAB_DEBUG=1 shows where it came from)", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None
