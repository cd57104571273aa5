"""The page of the guard from its first command to its last, with the service running meanwhile."""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest

import signstep as ss
from signstep.cli import main
from signstep.guard.charts import designed, run_length

pytest.importorskip("fastapi")
PAGE = (Path(__file__).parents[2] / "docs" / "guard.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"<!-- (run|serve) -->\n\n```sh\n(.*?)```", PAGE, re.DOTALL)


def serving(words: list[str], port: int) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-m", "signstep.cli", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(ss.__file__).parents[1])},
    )
    while process.poll() is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == 200:
                return process
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
    raise AssertionError("the service ended")


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process, said = None, {}
    try:
        for kind, block in BLOCKS:
            for text in block.strip().splitlines():
                words = shlex.split(text.replace("8080", str(port)))[1:]
                if kind == "serve":
                    process = serving(words, port)
                    continue
                assert main(words) == 0, text
                said[" ".join(words[:2])] = capfd.readouterr().out
    finally:
        if process is not None:
            process.terminate()
            assert process.wait(60) == 128 + 15
    assert (
        said["guard calibrate"].splitlines()[1].startswith("promise: 3.00% of clean inputs are flagged; from 500 rows")
    )
    assert [line.split()[0] for line in said["guard challenge"].splitlines()] == ["attacker", "clean", "pgd", "square"]
    assert said["guard log"].strip()
    assert "covered by" in (tmp_path / "guard-report" / "guard.html").read_text()
    assert len(said) == 7


def test_the_table_of_run_lengths_is_what_the_chain_gives() -> None:
    rows = re.findall(r"^\| (\d+), for .*? \|(.*)\|$", PAGE, re.MULTILINE)
    assert [int(height) for height, _ in rows] == [designed(0.01).height, designed(0.0157).height]
    for height, cells in rows:
        shown = [int(cell.replace(",", "")) for cell in cells.split("|")]
        found = [run_length(rate, int(height)) for rate in (0.01, 0.0157, 0.05, 0.1, 0.3, 1 - 1e-12)]
        assert shown == [pytest.approx(length, rel=0.05) for length in found]
