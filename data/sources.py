"""Rows from wherever they are: files, folders, `save_to_disk` folders, the Hub. What they mean is data.loading's part.

Files are read here and not by `datasets.load_dataset`, which copies them into a cache, stops at a JSON column of mixed
types, and turns CSV text such as "007" or "None" into something else.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
METADATA_FILES = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json"}
SPLIT_ALIASES = {"val": "validation", "valid": "validation", "dev": "validation"}
SPLIT_WORDS = {"train", "test", "validation", *SPLIT_ALIASES}


def open_source(source: str | Path | Dataset, *, split: str, name: str | None = None) -> tuple[Dataset, str]:
    """The rows as they are, and a label for messages."""
    from datasets import Dataset, DatasetDict

    if isinstance(source, Dataset):
        return source, "the given Dataset"
    if isinstance(source, DatasetDict):
        return _pick_split(source, split, "the given DatasetDict"), "the given DatasetDict"
    if not isinstance(source, str | Path):
        raise TypeError(f"source is a {type(source).__name__}; expected a path, a Hub name or a datasets.Dataset")
    path = Path(source).expanduser()
    if path.is_dir():
        return _open_folder(path, split, name), str(source)
    if path.is_file():
        return read_files([path]), str(source)
    if isinstance(source, Path) or _looks_like_path(source):
        raise FileNotFoundError(_no_such_file(path))
    return _open_hub(source, split, name), source


def rows_of(rows: Dataset) -> Iterator[dict[str, Any]]:
    """The rows as they are stored, read in batches: several times as fast as one by one."""
    for batch in rows.with_format(None).iter(batch_size=1000):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def _looks_like_path(source: str) -> bool:
    is_file_name = source.removesuffix(".gz").endswith((*DATA_SUFFIXES, ".txt", ".tsv", ".arrow"))
    return is_file_name or source.startswith((".", "/", "~")) or source.count("/") > 1 or "\\" in source


def _no_such_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f"no file or folder {path}: its folder does not exist either; check the path"
    near = difflib.get_close_matches(path.name, [item.name for item in path.parent.iterdir()], n=1)
    hint = f"did you mean {path.parent / near[0]}?" if near else "check the path"
    return f"no file or folder {path}: {hint}"


def _pick_split(splits: Mapping[str, Dataset], split: str, label: str) -> Dataset:
    if split not in splits:
        raise ValueError(f"{label} has no split {split!r}; it has {', '.join(splits)}: pass one of these as split=")
    return splits[split]


def _open_folder(folder: Path, split: str, name: str | None) -> Dataset:
    """A `save_to_disk` folder, or the data files below `folder` that belong to `split`."""
    from datasets import load_from_disk

    if name and (folder / name).is_dir():
        folder = folder / name
    if (folder / "dataset_dict.json").is_file():
        return _pick_split(load_from_disk(str(folder)), split, str(folder))
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        return load_from_disk(str(folder))
    return read_files(_files_of_split(folder, split))


def _files_of_split(folder: Path, split: str) -> list[Path]:
    """Data files whose names say `split` ("gsm8k_train.jsonl", "val-00000-of-00002.parquet"); all, if none says any."""
    files = [path for path in sorted(folder.rglob("*")) if _is_data_file(path.relative_to(folder)) and path.is_file()]
    if not files:
        raise FileNotFoundError(
            f"no data file in {folder}; expected {', '.join(DATA_SUFFIXES)} (or .gz), or save_to_disk's files"
        )
    named = {path: words for path in files if (words := _split_words(path))}
    if named:
        wanted = SPLIT_ALIASES.get(split, split)
        files = [path for path, words in named.items() if wanted in words]
        if not files:
            known = sorted(set().union(*named.values()))
            raise ValueError(f"no file in {folder} is named for split {split!r}; its file names say {', '.join(known)}")
    parents = sorted({str(path.parent.relative_to(folder)) for path in files})
    if len(parents) > 1:
        raise ValueError(
            f"{folder} has matching files in {', '.join(parents)}; give one of these folders as source or name="
        )
    return files


def _is_data_file(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and path.name not in METADATA_FILES and _suffix(path) in DATA_SUFFIXES


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def _split_words(path: Path) -> set[str]:
    words = set(re.findall(r"[a-z]+", path.name.lower())) & SPLIT_WORDS
    return {SPLIT_ALIASES.get(word, word) for word in words}


def _open_hub(source: str, split: str, name: str | None) -> Dataset:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", source):
        raise ValueError(f"{source!r} is no file or folder here, and cannot be a Hub name (owner/name)")
    try:
        return load_dataset(source, name, split=split)
    except ConnectionError as error:
        raise ConnectionError(
            f"{source!r} is no file or folder here, and the Hub is out of reach ({error}). Download the "
            "set where there is a network and give its local path (.jsonl, .json, .csv, .parquet, or a folder)"
        ) from error
    except FileNotFoundError as error:  # datasets' DatasetNotFoundError is one
        raise FileNotFoundError(
            f"{source!r} is no file or folder here, and the Hub does not have it: {error}"
        ) from error
    except (ValueError, RuntimeError, DatasetsError) as error:
        raise ValueError(
            f"cannot load {source!r} from the Hub: {error} (name= picks a configuration, split= a split)"
        ) from error


def read_files(paths: Sequence[Path]) -> Dataset:
    """The rows of files of one format. JSON may mix types in a column (it becomes text); CSV columns stay text."""
    suffixes = sorted({_suffix(path) for path in paths})
    if len(suffixes) > 1:
        raise ValueError(
            f"{paths[0].parent} mixes {' and '.join(suffixes)} files; give one file, or a folder of one format"
        )
    if suffixes[0] not in DATA_SUFFIXES:
        raise ValueError(f"cannot read {paths[0]}: expected {', '.join(DATA_SUFFIXES)} (or .gz)")
    if suffixes[0] == ".parquet":
        return _read_parquet(paths)
    read = {".csv": _csv_rows, ".json": _json_rows, ".jsonl": _jsonl_rows}[suffixes[0]]
    rows = [row for path in paths for row in read(path, _read_text(path))]
    if not rows:
        raise ValueError(f"no rows in {', '.join(map(str, paths))}")
    return _dataset_from_rows(rows)


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.name.endswith(".gz") else data).decode("utf-8-sig")
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise ValueError(
            f"cannot read {path} as {'gzipped ' if path.suffix == '.gz' else ''}UTF-8 text: {error}"
        ) from error


def _read_parquet(paths: Sequence[Path]) -> Dataset:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset
    from datasets.table import InMemoryTable

    try:
        tables = [pq.read_table(path) for path in paths]
    except pa.ArrowInvalid as error:
        raise ValueError(f"cannot read {paths[0]} as parquet: {error}") from error
    return Dataset(InMemoryTable(pa.concat_tables(tables, promote_options="default")))


def _csv_rows(path: Path, text: str) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(2**31 - 1)  # the default of 128 KiB is shorter than some worked solutions
    reader = csv.DictReader(io.StringIO(text, newline=""))
    for row in reader:
        if None in row or None in row.values():
            raise ValueError(
                f"{path}:{reader.line_num}: more or fewer fields than the header's {len(reader.fieldnames or ())}; "
                "quote fields that hold a comma"
            )
        yield row


def _jsonl_rows(path: Path, text: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: not JSON ({error.msg}); expected one object a line") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number}: expected an object, got {type(row).__name__}")
        yield row


def _json_rows(path: Path, text: str) -> Iterator[dict[str, Any]]:
    """A list of objects, {"data": [...]}, or, as some `.json` files are, one object a line."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        yield from _jsonl_rows(path, text)
        return
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise ValueError(f'{path}: expected a list of objects, {{"data": [...]}}, or one object a line')
    yield from content


def _dataset_from_rows(rows: Sequence[Mapping[str, Any]]) -> Dataset:
    """A Dataset with the union of the rows' keys; a column of mixed types becomes text (JSON for what is no text)."""
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable

    names = list(dict.fromkeys(name for row in rows for name in row))
    arrays = {}
    for column in names:
        values = [row.get(column) for row in rows]
        try:
            arrays[column] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            arrays[column] = pa.array([None if value is None else _as_text(value) for value in values], pa.string())
    return Dataset(InMemoryTable(pa.table(arrays)))


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
