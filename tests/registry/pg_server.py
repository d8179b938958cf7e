"""A PostgreSQL server of the tests' own, on a socket in a folder; None where there are no binaries."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote


def binaries():
    """Return the folder of `pg_ctl` and `initdb`, or None."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("pg_ctl")
    return next((folder for folder in folders if (folder / "initdb").exists()), None) or (
        Path(found).parent if found else None
    )


class Server:
    """One server: started, stopped and restarted by the test. Root runs it as `postgres`, as it must."""

    def __init__(self, folder):
        self.folder, self.bin = folder, binaries()
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        self._run("initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "officer", "--no-sync")

    def _run(self, program, *arguments):
        command = [str(self.bin / program), *arguments]
        kwargs = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        done = subprocess.run(
            command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            cwd=self.folder, timeout=120, **kwargs,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def _control(self, *arguments):
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.folder}' -c max_connections=120"
        self._run(
            "pg_ctl", "-D", f"{self.folder}/data", "-w", "-l", f"{self.folder}/log", "-o", options, *arguments
        )

    def start(self):
        self._control("start")

    def restart(self, mode="immediate"):
        self._control("-m", mode, "restart")

    def stop(self):
        self._control("-m", "immediate", "stop")

    def url(self, database="postgres"):
        return f"postgresql://officer@/{database}?host={quote(str(self.folder), safe='')}"

    def create(self, database):
        import psycopg

        with psycopg.connect(
            f"host={self.folder} user=officer dbname=postgres", autocommit=True
        ) as connection:
            connection.execute(f'CREATE DATABASE "{database}"')
        return self.url(database)
