"""Who made a report: a signature that fits these files and this key alone."""

import stat
from pathlib import Path

import pytest
from forger import OWN, Forged

from signstep.auditing.checksums import write_sums
from signstep.auditing.signature import new_key, sign, signed
from signstep.cli import main
from signstep.errors import LoadError

pytest.importorskip("cryptography", reason="needs the extra sign")


def test_a_signed_report_is_its_makers(forged: Forged, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, key = forged.write(), tmp_path / "keys" / "me.key"
    assert main(["sign", "--new-key", str(key)]) == 0
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert main(["verify", str(report), *OWN, "--signed-by", f"{key}.pub"]) == 1
    assert "FAIL  signature: there is none" in capsys.readouterr().out
    assert main(["sign", str(report), "--key", str(key)]) == 0
    assert main(["verify", str(report), *OWN, "--signed-by", f"{key}.pub"]) == 0
    assert "ok    signature: the owner of me.key.pub signed these files" in capsys.readouterr().out
    assert main(["verify", str(report), *OWN]) == 0


def test_another_key_or_another_file_does_not_fit(forged: Forged, tmp_path: Path) -> None:
    report = forged.write()
    mine, other = tmp_path / "mine", tmp_path / "other"
    public, foreign = new_key(mine), new_key(other)
    sign(report, mine)
    assert signed(report, public).holds
    assert not signed(report, foreign).holds
    good = (report / "SHA256SUMS.sig").read_text()
    other_byte = f"{int(good[:2], 16) ^ 1:02x}"  # never the one that is there, whatever the key made
    for bad in ("", "00" * 64, good.strip()[:-2], "zz" * 64, other_byte + good[2:]):
        (report / "SHA256SUMS.sig").write_text(bad)
        assert not signed(report, public).holds
    (report / "SHA256SUMS.sig").write_text(good)
    forged.record["notes"] = ["signed by somebody"]
    forged.write()
    assert (report / "SHA256SUMS.sig").exists()
    assert not signed(report, public).holds


def test_a_link_is_no_signature(forged: Forged, tmp_path: Path) -> None:
    report, key = forged.write(), tmp_path / "me.key"
    public = new_key(key)
    sign(report, key)
    (report / "SHA256SUMS.sig").rename(tmp_path / "kept")
    (report / "SHA256SUMS.sig").symlink_to(tmp_path / "kept")
    assert not signed(report, public).holds
    write_sums(report)
    assert main(["verify", str(report), *OWN]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--key", "k"], "a report and --key are needed to sign"),
        (["R"], "a report and --key are needed to sign"),
        (["R", "--key", "none.key"], "none.key cannot be read"),
        (["R", "--key", "flat.npz"], "is no private key"),
        (["R", "--new-key", "x"], "--new-key makes a key and signs nothing"),
        (["--new-key", "flat.npz"], "flat.npz exists"),
    ],
)
def test_wrong_use(words: list[str], message: str, forged: Forged, capsys: pytest.CaptureFixture[str]) -> None:
    report = str(forged.write())
    capsys.readouterr()
    assert main(["sign", *(report if word == "R" else word for word in words)]) == 2
    assert message in capsys.readouterr().err


def test_what_was_changed_is_not_signed(forged: Forged, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = forged.write()
    new_key(tmp_path / "me.key")
    (report / "index.html").write_text("other")
    capsys.readouterr()
    assert main(["sign", str(report), "--key", str(tmp_path / "me.key")]) == 2
    assert "index.html was changed" in capsys.readouterr().err
    assert not (report / "SHA256SUMS.sig").exists()


def test_a_public_key_that_is_none(forged: Forged, tmp_path: Path) -> None:
    (tmp_path / "no.pub").write_text("ssh-ed25519 AAAA")
    with pytest.raises(LoadError, match="is no public key"):
        signed(forged.write(), tmp_path / "no.pub")
