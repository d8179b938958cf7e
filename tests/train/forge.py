"""Start runs in forked processes, on order: one JSON line in, one process id out.

The parent imports everything once and keeps no thread, so a child trains a few milliseconds after it was
asked for, and can be killed at any moment of its life.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import tinker

from tinker_officer import Conversations, Run
from tinker_officer.data.measure import renderer_identity
from tinker_officer.data.render import renderer_for, to_datum
from tinker_officer.train import live as _live  # noqa: F401 - imported for the children


def train(order: dict[str, Any]) -> None:
    """Run what was ordered, and write how it ended beside the folder."""
    if "file_limit" in order:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write beyond it fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_limit"], order["file_limit"]))
    data = Conversations.from_jsonl(order["rows"], progress=False).take(order["count"])
    run = Run.from_json(order["spec"], data=data)
    service = tinker.ServiceClient(base_url=order["url"], api_key=order["token"])
    with run.start(on=service, at=order["folder"], progress=False) as live:
        live.result()


def warm(order: dict[str, Any]) -> None:
    """Import, load and render once what every child would."""
    data = Conversations.from_jsonl(order["rows"], progress=False).take(order["count"])
    run = Run.from_json(order["spec"], data=data)
    renderer_identity(run.plan.base_model, "chatml")
    to_datum(data[0], renderer_for(run.plan.base_model))


def main() -> None:
    """Fork a child for every line."""
    warmed = False
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended children vanish by themselves
    for line in sys.stdin:
        order = json.loads(line)
        if not warmed:
            warm(order)
            warmed = True
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                train(order)
            except BaseException:  # noqa: BLE001 - the parent reads what it was
                Path(order["folder"] + ".failed").write_text(traceback.format_exc())
                os._exit(1)
            os._exit(0)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
