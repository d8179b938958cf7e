"""Rows of a hub data set, written where `datasets` looks for them: for machines that reach no hub.

`inspect_evals` asks for its data by the name of a data set, a configuration and a split. What is written here
is found under these names with `HF_HUB_OFFLINE=1`, and the task's own code runs on it unchanged.

    from tinker_officer.evals.hub_cache import write_rows

    write_rows("openai/gsm8k", {"test": rows, "train": examples}, data_dir="main")

It is for a copy of the *real* data that reached the machine in another way. The scorecard holds a digest of
the questions, so figures from other rows are never paired with these.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tinker_officer._digest import digest
from tinker_officer.errors import DataError
from tinker_officer.evals.machine import datasets_folder


_FIX = 'write_rows("openai/gsm8k", {"test": [{"question": "1 + 1?", "answer": "#### 2"}]}, data_dir="main")'


def write_rows(
    dataset: str,
    splits: Mapping[str, Iterable[Mapping[str, Any]]],
    *,
    config: str | None = None,
    data_dir: str | None = None,
) -> Path:
    """Write the splits of a data set into the cache of `datasets`, and return the folder.

    Args:
        dataset: its name on the hub, `owner/name`.
        splits: rows by split; columns as the task reads them.
        config: the configuration that the task asks for; None where it asks for none.
        data_dir: the folder inside the data set that the task asks for; None where it asks for none.

    Raises:
        DataError: the name is no hub name, or a split has no rows.
    """
    from datasets import BuilderConfig, Dataset
    from datasets.info import DatasetInfo
    from datasets.naming import camelcase_to_snakecase
    from datasets.splits import SplitDict, SplitInfo

    owner, _, name = dataset.partition("/")
    rows = {split: [dict(row) for row in given] for split, given in splits.items()}
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", dataset) or not rows or not all(rows.values()):
        raise DataError(
            "these rows cannot be written into the cache",
            got=f"{dataset!r} with "
            + (", ".join(f"{len(given)} {key}" for key, given in rows.items()) or "none"),
            need="a data set by its hub name, owner/name, and at least one row in each split",
            fix=_FIX,
        )
    asked = {} if data_dir is None else {"data_dir": data_dir}
    config_id = BuilderConfig(config or "default").create_config_id(asked) if asked or config else "default"
    snake = camelcase_to_snakecase(name)
    content = digest(json.loads(json.dumps(rows, default=str)))[:40]
    place = datasets_folder() / f"{owner}___{snake}" / config_id / "0.0.0" / content
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".writing-") as scratch:
        made = Path(scratch) / content
        made.mkdir()
        infos = SplitDict()
        features = None
        for split, given in rows.items():
            table = Dataset.from_list(given)
            features = features or table.features
            _write_arrow(table, made / f"{snake}-{split}.arrow")
            infos.add(SplitInfo(name=split, num_examples=len(table), dataset_name=snake))
        info = DatasetInfo(
            features=features,
            builder_name="cache",
            dataset_name=snake,
            config_name=config_id,
            version="0.0.0",
            splits=infos,
        )
        info.write_to_directory(str(made))
        if not place.exists():
            made.rename(place)
    return place


def _write_arrow(table: Any, path: Path) -> None:
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.data.table.schema) as writer:
        writer.write_table(table.data.table)
