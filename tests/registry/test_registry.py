"""The class behind the tables: what enters is checked, what a package brings is found, what a file names is not run."""

import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from scratch import installed, written

from signstep.errors import InputError, LoadError, SignstepWarning
from signstep.importing import Spelling
from signstep.registry import Brought, Registry, leaving_out, typed_only

GROUP = "signstep.pies"
SPELLING = Spelling("the pie", "name", "my_pies:plum")


@dataclass(frozen=True)
class Pie:
    name: str
    slices: int


def _check(brought: Brought) -> Pie:
    thing = brought.thing
    slices = getattr(thing() if callable(thing) else thing, "slices", None)
    if not isinstance(slices, int):
        raise InputError("it has no slices; give it a whole number of them")
    return Pie(brought.name, slices)


@pytest.fixture
def pies() -> Registry[Pie]:
    return Registry(GROUP, SPELLING, _check, {"plum": Pie("plum", 4), "apple": Pie("apple", 8)}, argument="pie")


# What a module of somebody else's has, and how many slices come of it.
PACKAGE = """
class Row:
    slices = 6
    def __init__(self, name):
        self.name = name
cherry = Row("cherry")
empty = 7
def fails():
    raise SystemExit(0)
"""


def test_it_is_a_mapping_that_nobody_writes_into(pies: Registry[Pie]) -> None:
    assert isinstance(pies, Mapping)
    assert list(pies) == ["plum", "apple"]
    assert len(pies) == 2
    assert pies["plum"].slices == 4
    assert "pear" not in pies
    assert pies.get("pear") is None
    assert pies.get(3) is None
    assert dict(pies) == dict(pies.own)
    with pytest.raises(TypeError):
        pies["pear"] = Pie("pear", 1)  # type: ignore[index]
    with pytest.raises(TypeError):
        pies.own["pear"] = Pie("pear", 1)  # type: ignore[index]


def test_a_name_that_is_not_there_is_said_in_a_sentence(pies: Registry[Pie]) -> None:
    for ask in (pies.__getitem__, pies.find):
        with pytest.raises(InputError, match=r"^pie='plumm' is not known; did you mean 'plum'\?$"):
            ask("plumm")
        with pytest.raises(InputError, match=r"apple; pass one of these, or your own, as my_pies:plum$"):
            ask("zzz")
    with pytest.raises(KeyError):
        pies["zzz"]


def test_a_row_is_checked_when_it_enters(pies: Registry[Pie]) -> None:
    assert pies.add(Pie("pear", 3)) == pies["pear"]
    assert list(pies) == ["plum", "apple", "pear"]
    assert list(pies.own) == ["plum", "apple"]
    with pytest.raises(InputError, match="the pie 'fig', brought by this program, cannot be used: it has no slices"):
        pies.add(object(), "fig")
    with pytest.raises(InputError, match="has no name; pass name="):
        pies.add(object())
    for taken in ("plum", "pear"):
        with pytest.raises(InputError, match=f"pie='{taken}' is taken; give the row another name"):
            pies.add(Pie(taken, 1))
    for wrong in ("a:b", "a,b", "a b", "", "a=1", "x\n", "\x1b[2J", "-f"):
        with pytest.raises(InputError, match="is no name; names have letters, digits"):
            pies.add(Pie(wrong, 1))


def test_a_row_can_be_lent(pies: Registry[Pie]) -> None:
    with pies.lent(Pie("pear", 3), Pie("fig", 2)):
        assert list(pies) == ["plum", "apple", "pear", "fig"]
    assert list(pies) == ["plum", "apple"]
    with pytest.raises(InputError, match="taken"), pies.lent(Pie("pear", 3), Pie("plum", 3)):
        pass
    assert list(pies) == ["plum", "apple"]


def test_what_is_typed_is_imported_from_the_current_folder(
    pies: Registry[Pie], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, {"signstep_pies_a.py": f"import torch\ntorch.rand(3)\n{PACKAGE}"})
    monkeypatch.chdir(tmp_path)
    path, state = list(sys.path), torch.get_rng_state()
    assert "signstep_pies_a:cherry" not in pies
    assert pies.find("signstep_pies_a:cherry") == Pie("signstep_pies_a:cherry", 6)
    assert sys.path == path
    assert torch.equal(torch.get_rng_state(), state)
    # From now on it is found by that name.
    assert list(pies) == ["plum", "apple", "signstep_pies_a:cherry"]
    pies.forget()
    assert list(pies) == ["plum", "apple"]


@pytest.mark.parametrize(
    ("spec", "error", "said"),
    [
        ("signstep_pies_b:cherrie", InputError, r"has no cherrie; did you mean|it defines Row, fails"),
        ("signstep_pies_bb:cherry", InputError, "there is no module signstep_pies_bb to import"),
        ("signstep_pies_b:empty", InputError, "the pie 'signstep_pies_b:empty' cannot be used: it has no"),
        ("signstep_pies_b:fails", InputError, r"it raised SystemExit: 0 \(.*signstep_pies_b.py, line \d+, in fails"),
        ("signstep_pies_c:x", LoadError, "importing signstep_pies_c failed with SystemExit"),
        ("my pies:plum", InputError, "pie='my pies:plum' is not one of plum, apple"),
    ],
)
def test_what_is_typed_and_does_not_fit(
    pies: Registry[Pie],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spec: str,
    error: type[Exception],
    said: str,
) -> None:
    written(tmp_path, {"signstep_pies_b.py": PACKAGE, "signstep_pies_c.py": "raise SystemExit(0)\n"})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=said):
        pies.find(spec)
    assert list(pies) == ["plum", "apple"]


def test_rows_of_installed_packages_are_there_when_somebody_looks(
    pies: Registry[Pie], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"signstep_pies_d.py": PACKAGE}
    points = "[signstep.pies]\ncherry = signstep_pies_d:cherry\n[other.group]\nplum = nowhere:nothing\n"
    installed(tmp_path, "pies-of-ours", files, points, monkeypatch)
    assert pies["plum"].slices == 4
    assert "signstep_pies_d" not in sys.modules, "a row of Signstep's own asks no package"
    assert pies.get("pear") is None
    assert "signstep_pies_d" not in sys.modules, "no package has this row"
    assert pies["cherry"] == Pie("cherry", 6)
    assert "signstep_pies_d" in sys.modules
    assert list(pies) == ["plum", "apple", "cherry"]
    assert pies["cherry"] is pies["cherry"]
    assert list(pies.own) == ["plum", "apple"]


@pytest.mark.parametrize(
    ("points", "files", "said"),
    [
        ("[signstep.pies]\nfig = signstep_pies_e:fig\n", {}, "No module named 'signstep_pies_e'"),
        ("[signstep.pies]\nfig = signstep_pies_e:fig\nfog = signstep_pies_e:fog\n", {}, "fig = signstep_pies_e:fig"),
        ("[signstep.pies]\nfig = signstep_pies_e:fig\n", {"signstep_pies_e.py": PACKAGE}, "AttributeError"),
        ("[signstep.pies]\nfig = signstep_pies_e:empty\n", {"signstep_pies_e.py": PACKAGE}, "it has no slices"),
        ("[signstep.pies]\nfig = signstep_pies_e:fails\n", {"signstep_pies_e.py": PACKAGE}, "it raised SystemExit"),
        ("[signstep.pies]\nfig = signstep_pies_e:x\n", {"signstep_pies_e.py": "raise SystemExit(0)"}, "SystemExit"),
        ("[signstep.pies]\nplum = signstep_pies_e:cherry\n", {"signstep_pies_e.py": PACKAGE}, "Signstep's own name"),
        ("[signstep.pies]\nf,g = signstep_pies_e:cherry\n", {"signstep_pies_e.py": PACKAGE}, "is no name"),
        ("[signstep.pies]\n\x1b[2J = x:y\n", {}, r"\\u001b"),
        ("[signstep.pies]\nfig\n", {}, "its metadata cannot be read"),
    ],
)
def test_a_broken_package_is_one_warning_and_breaks_nothing_else(
    pies: Registry[Pie],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    points: str,
    files: dict[str, str],
    said: str,
) -> None:
    good = {"signstep_pies_g.py": PACKAGE}
    installed(tmp_path / "good", "good-pies", good, "[signstep.pies]\ncherry = signstep_pies_g:cherry\n", monkeypatch)
    installed(tmp_path / "bad", "bad-pies", files, points, monkeypatch)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            assert set(pies) == {"plum", "apple", "cherry"}
            assert pies["plum"].slices == 4
            assert pies.get("fig") is None
    messages = [str(warning.message) for warning in caught]
    assert [warning.category for warning in caught] == [SignstepWarning], messages
    assert "bad-pies 1.0" in messages[0] or str(tmp_path / "bad") in messages[0]
    assert "\n" not in messages[0]
    assert "\x1b" not in messages[0]
    assert re.search(said, messages[0]), messages[0]


def test_of_two_packages_with_one_name_the_first_has_it(
    pies: Registry[Pie], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = "[signstep.pies]\ncherry = signstep_pies_{}:cherry\n"
    for name in ("i", "h"):
        files = {f"signstep_pies_{name}.py": PACKAGE}
        installed(tmp_path / name, f"pies-{name}", files, points.format(name), monkeypatch)
    with pytest.warns(SignstepWarning, match=r"pies-i 1.0 does not fit .* pies-h 1.0 has .cherry. in"):
        assert pies["cherry"].slices == 6
    assert "signstep_pies_h" in sys.modules
    assert "signstep_pies_i" not in sys.modules


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a module, and a package that is installed."""
    written(tmp_path / "here", {"signstep_pies_k.py": PACKAGE})
    monkeypatch.chdir(tmp_path / "here")
    files = {"signstep_pies_l.py": PACKAGE}
    points = "[signstep.pies]\ncherry = signstep_pies_l:cherry\nother = signstep_pies_l:cherry\n"
    installed(tmp_path / "there", "pies-l", files, points, monkeypatch)
    return tmp_path


@pytest.mark.usefixtures("workplace")
def test_what_a_file_names_is_not_imported(pies: Registry[Pie]) -> None:
    with typed_only():
        for name in ("signstep_pies_k:cherry", "cherry"):
            assert name not in pies
            with pytest.raises(InputError):
                pies.find(name)
        with pytest.raises(InputError, match="nothing is imported because a file names it; type it yourself"):
            pies.find("signstep_pies_k:cherry")
        assert list(pies) == ["plum", "apple"]
    assert "signstep_pies_k" not in sys.modules
    assert "signstep_pies_l" not in sys.modules


@pytest.mark.usefixtures("workplace")
def test_what_was_typed_before_is_there_for_what_a_file_names(pies: Registry[Pie]) -> None:
    pies.find("signstep_pies_k:cherry")
    pies.find("cherry")
    with typed_only():
        assert pies.find("signstep_pies_k:cherry").slices == 6
        assert pies["cherry"].slices == 6
        assert list(pies) == ["plum", "apple", "signstep_pies_k:cherry", "cherry"]
        assert "other" not in pies
    assert list(pies) == ["plum", "apple", "cherry", "other", "signstep_pies_k:cherry"]


def test_packages_of_a_folder_can_be_left_out(pies: Registry[Pie], workplace: Path) -> None:
    with leaving_out(lambda where: where.is_relative_to(workplace / "there")):
        assert list(pies) == ["plum", "apple"]
    assert "signstep_pies_l" not in sys.modules
    assert list(pies) == ["plum", "apple", "cherry", "other"]


def test_the_table_is_that_of_the_path(pies: Registry[Pie], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cherry" not in pies
    with monkeypatch.context() as patched:
        files = {"signstep_pies_m.py": PACKAGE}
        installed(tmp_path, "pies-m", files, "[signstep.pies]\ncherry = signstep_pies_m:cherry\n", patched)
        assert "cherry" in pies
    assert "cherry" not in pies
