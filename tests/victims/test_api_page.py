"""docs/api-victims.md from its first file to its last command, against the server that the page itself has."""

import importlib
import re
import shlex
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

import signstep as ss
from signstep.auditing.matrix import TransferMatrix
from signstep.cli import main
from signstep.export import write_png
from signstep.model.victims import described
from signstep.model.victims.pace import Limits

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "api-victims.md").read_text(encoding="utf-8")
FILES = re.findall(r"<!-- file -->\n\n```\w+\n# (\S+)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
SHELL = re.search(r"<!-- run -->\n\n```sh\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("PIL")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [name for name, _ in FILES] == ["colours.py", "victim.toml", "mynet.py"]
    for name, text in FILES:
        Path(name).write_text(text)
    generator = torch.Generator().manual_seed(0)
    for number, name in enumerate(("red", "green", "blue")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        images = 0.2 + 0.1 * torch.rand(2, 3, 6, 6, generator=generator)
        images[:, number] += torch.tensor([0.02, 0.2])[:, None, None]
        write_png(images, [tmp_path / "photos" / name / f"{row}.png" for row in range(2)])
    try:
        handler = importlib.import_module("colours").Colours
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        assert SHELL is not None
        ran = []
        for line in SHELL[1].splitlines():
            words = shlex.split(line.replace("127.0.0.1:8000", f"127.0.0.1:{server.server_port}"))
            if words[0] == "export":
                name, _, value = words[1].partition("=")
                monkeypatch.setenv(name, value)
            elif words[0] == "signstep":
                assert main(words[1:]) == 0, capsys.readouterr().err
                ran.append(words[1])
        server.shutdown()
        server.server_close()
        thread.join()
    finally:
        for name in ("colours", "mynet"):
            sys.modules.pop(name, None)
    said = capsys.readouterr()
    assert ran == ["audit", "audit", "verify", "attack", "transfer"]
    assert "let-me-in" not in said.out + said.err
    assert "nothing was sent" in said.out
    result = ss.Result.load("signstep-report/result.json")
    asked = result.terms["requests"]
    assert result.clean_right == 6
    assert 0 < result.fooled < 6
    assert f"Sent to the endpoint: {asked['sent']} requests (of 2000 at most)" in " ".join(said.out.split())
    assert 0 < TransferMatrix.load("signstep-transfer/transfer.json").cells[0].fooled < 6


def test_the_page_has_every_key_and_no_other() -> None:
    tables = {
        name: set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`[^|]+) \|", part, re.MULTILINE))))
        for name, part in re.findall(r"^\| `\[(\w+)\]` \|(.*?)\n\n", TEXT, re.DOTALL | re.MULTILINE)
    }
    assert tables == {name: set(keys) for name, keys in described.KEYS.items()}


def test_the_limits_that_the_page_states_are_those() -> None:
    limits = Limits()
    assert (limits.timeout, limits.retries, limits.backoff, limits.longest_wait) == (10.0, 3, 0.5, 60.0)
    for said in ("take (10 s)", "one request (3)", "the first (0.5)", "at most (60)"):
        assert said in TEXT
