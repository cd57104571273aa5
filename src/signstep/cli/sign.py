"""``signstep sign``: who made a report."""

from pathlib import Path
from typing import Annotated

import typer

from signstep.auditing.checksums import check_sums
from signstep.auditing.signature import new_key
from signstep.auditing.signature import sign as sign_report
from signstep.cli.app import app
from signstep.cli.terminal import told
from signstep.errors import InputError
from signstep.messages import Arg

_HELP = """Sign a report with an Ed25519 key, so that others can tell who made it (signstep verify --signed-by).

The signature covers the SHA-256 of every file of the report. It says who signed, not that what is signed is true.

Examples:

  signstep sign --new-key me.key

  signstep sign signstep-report --key me.key
"""


@app.command(short_help="Sign a report.", help=_HELP)
def sign(
    report: Annotated[Path | None, typer.Argument(help="The folder that signstep audit wrote.")] = None,
    key: Annotated[Path | None, typer.Option(help="The private key.")] = None,
    new_key_: Annotated[
        Path | None, typer.Option("--new-key", help="Make a key there, and its public half beside it (.pub).")
    ] = None,
) -> None:
    """Sign."""
    if new_key_ is not None:
        if report is not None or key is not None:
            raise InputError(
                Arg("new_key"),
                "makes a key and signs nothing",
                remedy=("drop the report and", Arg("key"), ", and sign with it then"),
            )
        told(f"private key: {new_key_}; give others {new_key(new_key_)}")
        return
    if report is None or key is None:
        raise InputError("a report and", Arg("key"), "are needed to sign", remedy=("make a key with", Arg("new_key")))
    files = check_sums(report)
    if not files.holds:
        raise InputError(
            f"{report} is not signed, since its files are not as they were written: {files.seen}",
            remedy="sign one that nobody has changed",
        )
    told(f"signature: {sign_report(report, key)}")
