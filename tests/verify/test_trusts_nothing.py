"""`signstep verify` runs nothing and loads nothing that lies in a report or that a report names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forger import OWN, Forged
from torch import nn

import signstep
from signstep.cli import main
from signstep.cli.isolation import inside, isolated

HOSTILE = "from pathlib import Path\nPath(r'{}').write_text('run')\n"


def ran(tmp_path: Path) -> Path:
    return tmp_path / "PWNED"


def configured(forged: Forged, text: str) -> Path:
    """The report with another configuration, which alone is what it names."""
    forged.config = text
    return forged.write()


def test_what_the_report_names_is_shown_and_not_called(
    forged: Forged, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = f"touch {ran(tmp_path)}"
    report = configured(
        forged, f'[audit]\nmodel = "subprocess:getoutput"\nmodel_arg = ["cmd={command}"]\ndata = "flat.npz"\n'
    )
    capsys.readouterr()
    assert main(["verify", str(report)]) in (1, 4)
    said = capsys.readouterr().out
    assert not ran(tmp_path).exists()
    assert said.splitlines()[0].startswith("NOT CHECKED: what a model answers")
    assert f"signstep verify {report} --model=subprocess:getoutput '--model-arg=cmd={command}' --data=flat.npz" in said


def test_ones_own_model_does_not_get_the_reports_arguments(forged: Forged, capsys: pytest.CaptureFixture[str]) -> None:
    kept = [line for line in forged.config.splitlines() if not line.startswith("model_arg")]
    report = configured(forged, "\n".join([*kept, 'model_arg = ["width=3"]\n']))
    capsys.readouterr()
    assert main(["verify", str(report), *OWN]) == 0, capsys.readouterr().out


def test_a_module_in_the_report_is_not_imported(
    forged: Forged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = forged.write()
    (report / "evilnets.py").write_text(HOSTILE.format(ran(tmp_path)) + "net = None\n")
    link = tmp_path / "link"
    link.symlink_to(report)
    data = str(Path("flat.npz").resolve())
    ways = [
        (report, "evilnets:net"),
        (report / "pictures" if (report / "pictures").is_dir() else report, "evilnets:net"),
        (link, "evilnets:net"),
        (tmp_path, f"{report.name}.evilnets:net"),
        (tmp_path, "link.evilnets:net"),
    ]
    for where, model in ways:
        monkeypatch.chdir(where)
        for folder in (str(report), str(link), "."):
            if folder == "." and where == tmp_path:
                continue
            main(["verify", folder, "--model", model, "--data", data])
            assert not ran(tmp_path).exists(), (where, model, folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(report))
    assert main(["verify", str(report), "--model", "evilnets:net", "--data", data]) == 2
    assert not ran(tmp_path).exists()


def test_the_fence_lets_modules_of_the_same_name_elsewhere_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = tmp_path / "report", tmp_path / "own"
    for folder, value in ((bad, "bad"), (good, "good")):
        folder.mkdir()
        (folder / "twonamed.py").write_text(f"value = {value!r}\n")
    (bad / "onlythere.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(good))
    monkeypatch.syspath_prepend(str(bad))
    with isolated(bad):
        import twonamed  # type: ignore[import-not-found]

        with pytest.raises(ModuleNotFoundError, match="lies inside the report"):
            import onlythere  # type: ignore[import-not-found]  # noqa: F401
    assert twonamed.value == "good"
    del sys.modules["twonamed"]
    assert not [part for part in sys.meta_path if type(part).__name__ == "_Guard"]


@pytest.mark.parametrize("file", ["signstep.toml", "pyproject.toml"])
def test_a_configuration_in_the_report_is_not_the_verifiers(
    forged: Forged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    """The current folder is the report's: what lies there sets nothing, also not by way of a link or of --config."""
    report = forged.write()
    command = f"touch {ran(tmp_path)}"
    table = f'model = "subprocess:getoutput"\nmodel_arg = ["cmd={command}"]\ndata = "digits"\n'
    text = f"[audit]\n{table}[verify]\n{table}render = '{tmp_path / 'written'}'\n"
    if file == "pyproject.toml":
        text = f"[tool.signstep.audit]\n{table}[tool.signstep.verify]\n{table}render = '{tmp_path / 'written'}'\n"
    (report / file).write_text(text)
    link = tmp_path / "link"
    link.symlink_to(report)
    sub = report / "pictures"
    sub.mkdir(exist_ok=True)
    (sub / file).write_text((report / file).read_text())
    for where in (report, link, sub):
        monkeypatch.chdir(where)
        for words in (["verify", str(report)], ["--config", str(report / file), "verify", str(report)]):
            assert main(words) in (1, 2)
            assert not ran(tmp_path).exists()
            assert not (tmp_path / "written").exists()
    # Nor does any other command take up what lies in a report.
    monkeypatch.chdir(report)
    assert main(["audit", "--limit", "2", "--out", str(tmp_path / "own")]) == 0
    assert not ran(tmp_path).exists()
    capsys.readouterr()


def test_ones_own_configuration_counts(forged: Forged, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    report = forged.write()
    place = Path.cwd()
    table = f'model = "forgednets:net"\nweights = "{place}/net.safetensors"\ndata = "{place}/flat.npz"\n'
    monkeypatch.syspath_prepend(str(place))
    for name in ("audit", "verify"):
        mine = tmp_path / name
        mine.mkdir()
        (mine / "signstep.toml").write_text(f"[{name}]\n{table}")
        monkeypatch.chdir(mine)
        assert main(["verify", str(report)]) == 0
    # Another model than the configured one gets neither its arguments nor its weights.
    (tmp_path / "verify" / "signstep.toml").write_text(f'[audit]\n{table}model_arg = ["width=7"]\n')
    assert main(["verify", str(report), "--model", "forgednets:net"]) == 1
    assert main(["verify", str(report), *OWN[:2], "--weights", str(place / "net.safetensors")]) == 0


@pytest.mark.parametrize("option", ["--weights", "--data", "--classes", "--signed-by", "--render", "--model"])
def test_no_file_comes_out_of_the_report(
    option: str, forged: Forged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = forged.write()
    for name in ("net.safetensors", "flat.npz"):
        (report / name).write_bytes(Path(name).read_bytes())
    (report / "program.pt2").write_bytes(b"PK")
    link = tmp_path / "link"
    link.symlink_to(report)
    name = {"--weights": "net.safetensors", "--data": "flat.npz", "--model": "program.pt2"}.get(option, "result.json")
    monkeypatch.chdir(tmp_path)
    for path in (report / name, link / name, Path("link") / ".." / report.name / name, report / "new" / name):
        capsys.readouterr()
        assert main(["verify", str(report), *OWN, option, str(path), "--trust"]) == 2
        assert "lies inside the report" in capsys.readouterr().err


def test_a_program_that_the_report_trusts_is_not_loaded(
    forged: Forged, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from signstep.model.opening import exported

    def loaded(*_: object, **__: object) -> nn.Module:
        raise AssertionError("a program was loaded")

    monkeypatch.setattr(exported, "load_exported", loaded)
    report = configured(forged, '[audit]\nmodel = "evil.pt2"\ntrust = true\ndata = "flat.npz"\n')
    (report / "evil.pt2").write_bytes(b"PK")
    capsys.readouterr()
    assert main(["verify", str(report)]) == 1
    said = capsys.readouterr().out
    assert "--model=evil.pt2" in said
    assert "--trust" not in said


def test_a_proposal_is_one_line_that_a_shell_reads_as_words(
    forged: Forged, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"$(touch {ran(tmp_path)}); `touch {ran(tmp_path)}` ' \\u001b[2J\\u0007\\u202e\\nok    files"
    report = configured(forged, f'[audit]\nmodel = "{text}"\ndata = "--render=/tmp/x"\n')
    capsys.readouterr()
    main(["verify", str(report)])
    said = capsys.readouterr().out
    assert not set(said) & set("\x1b\x07\u202e")
    line = next(line for line in said.splitlines() if line.startswith("  signstep verify"))
    words = subprocess.run(["sh", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True).stdout
    assert not ran(tmp_path).exists()
    assert "--data=--render=/tmp/x" in words.splitlines()
    assert any(word.startswith("--model=$(touch") for word in words.splitlines())


def test_hostile_strings_of_a_record_do_not_reach_the_terminal(
    forged: Forged, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b[2J\x07\u202e\nok    everything: holds"
    forged.record.update(model=evil, data=evil, notes=[evil], ladder=evil)
    forged.record["terms"]["device"] = evil
    forged.record["versions"] = {evil: evil}
    forged.record["hashes"] = {evil: evil}
    forged.record["terms"][evil] = evil
    forged.rename(forged.attack("pgd")["name"], evil.replace("\x1b", "").replace("\n", " ").replace("\x07", ""))
    report = forged.write()
    (report / f"x{evil}").write_text("")
    capsys.readouterr()
    assert main(["verify", str(report), *OWN]) == 1
    said = capsys.readouterr()
    assert not set(said.out + said.err) & set("\x1b\x07\u202e")
    assert "\nok    everything" not in said.out


def test_the_current_folder_is_not_imported_from_when_python_starts(forged: Forged, tmp_path: Path) -> None:
    """Run in the report's folder, where modules lie under the names of those that are imported on the way."""
    report = forged.write()
    for name in ("torch", "json", "random", "safetensors", "numpy", "typer", "tomllib", "jinja2"):
        (report / f"{name}.py").write_text(HOSTILE.format(ran(tmp_path)))
    source = Path(signstep.__file__).parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }
    words = [sys.executable, "-m", "signstep.cli", "verify", "."]
    done = subprocess.run(words, cwd=report, env=environment, capture_output=True, text=True, check=False)
    assert not ran(tmp_path).exists(), done.stderr
    assert done.returncode == 1
    assert "torch.py is no file of a report" in done.stdout + done.stderr or "is not listed" in done.stdout


def test_inside_follows_links_and_does_not_follow_names(tmp_path: Path) -> None:
    report = tmp_path / "report"
    (report / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(report)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert inside(report, report)
    assert inside(report / "deep" / "x", tmp_path / "link")
    assert inside(tmp_path / "link" / "x", report)
    assert not inside(tmp_path / "reporter", report)
    assert not inside(report / ".." / "x", report)
    assert inside("bad\0name", report)


def test_merging_comparing_and_gates_load_nothing(
    forged: Forged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other readers of reports: their configuration is copied at most, and no code of theirs is found."""
    import importlib

    real = importlib.import_module
    asked: list[str] = []

    def watched(name: str, package: str | None = None) -> object:
        asked.append(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", watched)
    forged.config = '[audit]\nmodel = "subprocess:getoutput"\nmodel_arg = ["cmd=true"]\nshard = "0/1"\n'
    forged.record["terms"]["shard"] = [0, 1]
    report = forged.write()
    (report / "torch.py").write_text(HOSTILE.format(ran(tmp_path)))
    monkeypatch.chdir(report)
    assert main(["merge", str(report), "--out", str(tmp_path / "merged")]) == 0
    assert main(["compare", f"a={report}", f"b={report}"]) == 0
    assert main(["audit", "--limit", "2", "--baseline", "result.json", "--out", str(tmp_path / "own")]) == 2
    assert "subprocess" not in asked
    assert not ran(tmp_path).exists()
    capsys.readouterr()


def test_the_model_is_as_random_as_it_is(forged: Forged, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record of a model that draws nothing is not confirmed by one that draws."""
    monkeypatch.syspath_prepend(str(Path.cwd()))
    import forgednets  # type: ignore[import-not-found]

    class Noisy(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for part in self:
                x = part(x)
            return x + 1e-6 * torch.rand(())

    monkeypatch.setattr(forgednets, "net", lambda: Noisy(nn.Flatten(), nn.Linear(12, 4)))
    assert main(["verify", str(forged.write()), *OWN]) == 1
