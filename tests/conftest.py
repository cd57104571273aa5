"""What every test may rely on, and what it must leave as it was: no test depends on another, or on who runs it.

Two suites side by side, tests in any order and one test alone see the same: a home and caches of their own, one state
of the generators, one thread, no settings of the person or the machine.
"""

import atexit
import locale
import os
import random
import shutil
import signal
import site
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

# Before anything is imported that looks at them. Programs that tests start inherit them.
_OWN = Path(tempfile.mkdtemp(prefix="signstep-tests-"))
atexit.register(shutil.rmtree, _OWN, ignore_errors=True)
_FOLDERS = {
    "HOME": "home",
    "USERPROFILE": "home",
    "XDG_CACHE_HOME": "cache",
    "XDG_CONFIG_HOME": "config",
    "XDG_DATA_HOME": "share",
    "SIGNSTEP_CACHE": "cache/signstep",
    "TORCH_HOME": "cache/torch",
    "TORCHINDUCTOR_CACHE_DIR": "cache/inductor",
    "TRITON_CACHE_DIR": "cache/triton",
    "HF_HOME": "cache/huggingface",
    "MPLCONFIGDIR": "config/matplotlib",
}
# How wide and colourful a terminal is, and which way the network goes: of the person, not of the tests.
_PERSONAL = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "PYTHONWARNINGS")
# Variables of pytest itself, and those that OpenMP sets when a library is imported.
_THEIRS = ("PYTEST_", "KMP_")
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy")
os.environ.setdefault("PYTHONUSERBASE", site.getuserbase())  # packages of the person stay, wherever home is
for _name, _folder in _FOLDERS.items():
    os.environ[_name] = str(_OWN / _folder)
    (_OWN / _folder).mkdir(parents=True, exist_ok=True)
for _name in (*_PERSONAL, *_PROXIES, *map(str.upper, _PROXIES)):
    os.environ.pop(_name, None)
os.environ |= {"no_proxy": "*", "TZ": "UTC", "COLUMNS": "80", "LINES": "24"}  # readline would set the last two
# A second thread that has nothing to do spins, and where another worker wants its core both come to a standstill.
os.environ["OMP_WAIT_POLICY"] = "passive"

# Where tests run in the background of a shell Ctrl-C is ignored, by them and by every program that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from pairwise import covering  # noqa: E402
from signstep.attacks.recipes import RECIPES  # noqa: E402
from signstep.auditing.added_sections import SECTIONS  # noqa: E402
from signstep.auditing.findings import FINDINGS  # noqa: E402
from signstep.auditing.ladder import LADDERS  # noqa: E402
from signstep.data.sources import DATA  # noqa: E402
from signstep.defences import DEFENCES  # noqa: E402
from signstep.domains import DOMAINS  # noqa: E402
from signstep.engine.norms import FAMILIES, NORMS  # noqa: E402
from signstep.engine.tasks import TASKS  # noqa: E402
from signstep.registry import Registry  # noqa: E402
from signstep.train.recipes import TRAINING_RECIPES  # noqa: E402

if TYPE_CHECKING:
    from forger import Forged

_TABLES: dict[str, Mapping[str, Any]] = {
    "RECIPES": RECIPES,
    "LADDERS": LADDERS,
    "NORMS": NORMS,
    "FAMILIES": FAMILIES,
    "DATA": DATA,
    "DEFENCES": DEFENCES,
    "TASKS": TASKS,
    "DOMAINS": DOMAINS,
    "TRAINING_RECIPES": TRAINING_RECIPES,
    "FINDINGS": FINDINGS,
    "SECTIONS": SECTIONS,
}


# Files with tests that take long alone: first, so that workers which take tests from each other end together.
_LONG = {
    "test_clusters.py",
    "test_tutorial.py",
    "test_faults.py",
    "test_checkpoints.py",
    "test_guard_page.py",
    "test_readme_blocks.py",
    "test_bracket.py",
    "test_names_of_attacks.py",
    "test_multimodal_case.py",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backwards", action="store_true", help="run the tests from the last to the first")
    parser.addoption("--whole", action="store_true", help="of tests marked pairwise run every combination")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--whole"):
        _thin(config, items)
    items.sort(key=lambda item: item.path.name not in _LONG)
    if config.getoption("--backwards"):
        items.reverse()
    # Processes that share the tests have to call them alike: an address in a name is another one in each.
    unlike = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if unlike:
        raise pytest.UsageError(f"give these tests ids of their own: {unlike[:3]}")


def _thin(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave of each test marked pairwise the combinations in which every two values meet."""
    families: dict[str, list[pytest.Function]] = {}
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("pairwise") and hasattr(item, "callspec"):
            families.setdefault(item.nodeid.split("[")[0], []).append(item)
    left_out = set()
    for family in families.values():
        kept = covering([item.callspec.params for item in family])
        left_out |= {item.nodeid for item in family} - {family[place].nodeid for place in kept}
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in left_out])
        items[:] = [item for item in items if item.nodeid not in left_out]


def pytest_collectstart() -> None:
    _seed()  # for what modules of tests draw when they are imported


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol() -> None:
    _seed()  # before fixtures of a wider scope are made for the first time, by whichever test comes first


def _seed() -> None:
    # torch.manual_seed would also note who called it, for a graphics card that it has not begun with: milliseconds.
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(0)
    torch.default_generator.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """One thread, so that sums have one order and two cores stay usable."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def leaves_nothing_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the next test would see of this one is an error of this one; modules from its folders are dropped."""
    before, path = settings(), [*sys.path]
    yield
    sys.path[:] = path
    forget()
    _drop_modules(tmp_path_factory.getbasetemp())
    changed = differences(before, settings())
    assert not changed, f"left behind for the tests to come: {'; '.join(changed)}"


def forget() -> None:
    """Drop from all tables what was typed as module:name: the folder that it came from is gone."""
    for table in _TABLES.values():
        if isinstance(table, Registry):
            table.forget()


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What is not as it was."""
    names = {**before, **after}
    said = "{} was {}, is {}"
    return [
        said.format(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)
    ]


def settings() -> dict[str, Any]:
    """Everything that is one for the whole process and that a test may change."""
    found = {f"${name}": value for name, value in os.environ.items() if not name.startswith(_THEIRS)}
    for title, table in _TABLES.items():
        found |= {f"{title}[{key}]": str(id(row)) for key, row in table.items()}
    return found | {
        "folder": Path.cwd(),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device() if hasattr(torch, "get_default_device") else None,
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "locale": locale.setlocale(locale.LC_ALL),
    }


# Modules that were looked at already and are not from the tests' folders. There are thousands, and this is after every
# test: to look at all of their files each time took a third of the whole suite.
_ELSEWHERE: dict[str, ModuleType] = {}


def _drop_modules(base: Path) -> None:
    if sys.modules.items() <= _ELSEWHERE.items():  # nothing new: the usual case, in a loop of C
        return
    for name, module in [(name, module) for name, module in sys.modules.items() if _ELSEWHERE.get(name) is not module]:
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and Path(file).is_relative_to(base):
            del sys.modules[name]
        else:
            _ELSEWHERE[name] = module


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_disks() -> Iterator[None]:
    """Only a loss of power could tell; a thousand small reports that wait for a disk cost minutes.

    Commands in processes of their own do wait, and `tests/test_faults.py` sees to what is synced, in which order.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def no_global_seed() -> Iterator[None]:
    """The test may seed the global generator as it likes; the next test finds it as before."""
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For tests/verify: a folder with a model and data, and in it honest reports: "honest", "climbed", "proved"."""
    from forger import ATTACKS, IMAGES, OWN, RUNGS, audited, workplace

    folder = workplace(tmp_path_factory.mktemp("workplace"))
    before = Path.cwd()
    os.chdir(folder)
    try:
        audited(folder / "honest", *OWN, "--attack", ATTACKS)
        audited(folder / "climbed", *IMAGES, "--ladder", RUNGS)
        audited(folder / "proved", *IMAGES, "--ladder", RUNGS, "--bounds", "crown")
    finally:
        os.chdir(before)
        sys.modules.pop("forgednets", None)
    return folder


@pytest.fixture
def forged(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Forged":
    """A copy of the report to forge; the current folder is the verifier's."""
    from forger import Forged

    monkeypatch.chdir(honest)
    monkeypatch.delitem(sys.modules, "forgednets", raising=False)
    return Forged.of(honest / "honest", tmp_path / "report")


@pytest.fixture
def climbed(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Forged":
    """The same of a ladder."""
    from forger import Forged

    monkeypatch.chdir(honest)
    monkeypatch.delitem(sys.modules, "forgednets", raising=False)
    return Forged.of(honest / "climbed", tmp_path / "climbed")


@pytest.fixture
def proved(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Forged":
    """The same of a ladder that meets what is not proved."""
    from forger import Forged

    monkeypatch.chdir(honest)
    monkeypatch.delitem(sys.modules, "forgednets", raising=False)
    return Forged.of(honest / "proved", tmp_path / "proved")
