"""``signstep merge``: the shards of an audit as one report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import Tensor

from signstep.auditing.evidence import Evidence
from signstep.auditing.findings import examine
from signstep.auditing.merge import merge as merge_results
from signstep.auditing.merge import merge_points
from signstep.auditing.result import Result
from signstep.auditing.table import table
from signstep.cli.app import app, command_tree
from signstep.cli.audit import write_folder
from signstep.cli.config import Settings, dump_config, read_config
from signstep.cli.first import refuse_missing
from signstep.cli.terminal import aside, noted, say, told
from signstep.cli.work import output_folder

_HELP = """Join the results of an audit that ran in shards (--shard 0/4, 1/4, ...) into the one of a single audit.

Examples stand in the order of the data again; counts and passes are added, quartiles taken over all examples. Only the
seconds are those of all shards together. Shards that are missing, doubled, partial or made under other terms are named.
From folders of reports, saved points and the configuration are joined too, so that signstep verify can check the whole.

Example:

  signstep merge shard-0 shard-1 shard-2 shard-3 --out signstep-report
"""


@app.command(short_help="Join the results of shards into one.", help=_HELP)
def merge(
    context: typer.Context,
    results: Annotated[list[Path], typer.Argument(help="Folders that signstep audit wrote, or their result.json.")],
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("signstep-report"),
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON instead of the table.")] = False,
) -> None:
    """Merge."""
    settings = context.obj if isinstance(context.obj, Settings) else Settings()
    for path in results:
        refuse_missing("", path)
    shards = [Result.load(path / "result.json" if path.is_dir() else path) for path in results]
    result = merge_results(shards)
    quiet = aside()
    with output_folder(out, marks=("SHA256SUMS", "result.json")) as folder:
        points = merge_points(shards, [_points(path) for path in results])
        config, ignore = _config(results, settings)
        write_folder(result, points, folder, config, Settings(ignore=ignore))
    told(result.to_json() if json else table(result))
    findings = examine(result, ignore)
    for finding in findings:
        noted(str(finding))
    say(quiet, f"report: {folder / 'index.html'}")


def _points(path: Path) -> Mapping[str, Tensor]:
    kept = path / "adversarial.safetensors"
    return Evidence.load(kept) if kept.is_file() else {}


def _config(paths: Sequence[Path], settings: Settings) -> tuple[str | None, dict[str, str]]:
    """The configuration of the whole audit: that of a shard without the shard; and the findings set aside."""
    first = paths[0] / "signstep.toml"
    if not first.is_file():
        return None, settings.ignore
    stated = read_config(first, command_tree())
    options: dict[str, Any] = dict(stated.defaults.get("audit", {}))
    options.pop("shard", None)
    ignore = {**stated.ignore, **settings.ignore}
    return dump_config("audit", options, ignore), ignore
