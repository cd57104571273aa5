"""An S3 server on this machine, and audits whose data lies there.

    pip install 's3fs' 'moto[s3]' flask flask-cors
    python benchmarks/s3_local.py

The server is moto's, on loopback; it checks the signature of each request, and one user may read. First an audit of the
file from the server, by two workers, is compared with one of the same file from the disk, and `signstep verify` reads
the file again. Then whatever can go wrong does, and the exit status and the last line of each command are printed.
"""

import io
import json
import logging
import os
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import s3fs
import torch

from signstep.auditing.result import Result
from signstep.cli import main as signstep_main

NETS = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
"""
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
POLICY = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}}


def examples(seed: int) -> dict[str, Any]:
    x = torch.randint(0, 255, (600, 3, 2, 2), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return {"x": x.numpy(), "y": (torch.arange(600) % 4).numpy()}


def begun() -> tuple[Any, dict[str, str]]:
    """A server with a bucket and a user, and what the user's environment says."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    where = "http://{}:{}".format(*server.get_host_and_port())
    known = {"endpoint_url": where, "region_name": "us-east-1"}
    root = {"aws_access_key_id": "root", "aws_secret_access_key": "root"}
    users = boto3.client("iam", **known, **root)
    users.create_user(UserName="reader")
    users.put_user_policy(UserName="reader", PolicyName="all", PolicyDocument=json.dumps(POLICY))
    key = users.create_access_key(UserName="reader")["AccessKey"]
    store = boto3.client("s3", **known, **root)
    store.create_bucket(Bucket="bucket")
    count = urllib.request.Request(f"{where}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"})
    urllib.request.urlopen(count).close()  # from now on signatures count
    found = {KEYS[0]: key["AccessKeyId"], KEYS[1]: key["SecretAccessKey"]}
    return server, {
        **found,
        "AWS_ENDPOINT_URL": where,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def put(given: Mapping[str, str], path: Path, name: str) -> None:
    import boto3

    boto3.client(
        "s3",
        endpoint_url=given["AWS_ENDPOINT_URL"],
        region_name=given["AWS_DEFAULT_REGION"],
        aws_access_key_id=given[KEYS[0]],
        aws_secret_access_key=given[KEYS[1]],
    ).upload_file(str(path), "bucket", name)


class Shell:
    """Commands in the current folder, with an environment; each prints how it ended."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = dict(given)

    def run(self, words: str, *, what: str = "", **other: str | None) -> int:
        """The exit status of a command; ``what`` is said in place of its words."""
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        given: dict[str, str | None] = {**self._given, **other}
        os.environ.update({name: text for name, text in given.items() if text is not None})
        s3fs.S3FileSystem.clear_instance_cache()  # it holds the credentials of the command before
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = signstep_main(words.split())
        said = [line for line in (err.getvalue() or out.getvalue()).splitlines() if line.strip()] or [""]
        print(f"{what or '$ signstep ' + words}\n  {status}: {said[-1]}", flush=True)
        return status


def main() -> None:
    server, given = begun()
    try:
        with tempfile.TemporaryDirectory() as place:
            os.chdir(place)
            sys.path.insert(0, place)
            tried(Shell(given), given)
            os.chdir("/")
    finally:
        server.stop()


def tried(shell: Shell, given: Mapping[str, str]) -> None:
    import numpy as np

    here = Path.cwd()
    (here / "nets.py").write_text(NETS)
    for seed, name in enumerate(("one", "two")):
        np.savez(here / f"{name}.npz", **examples(seed))
    put(given, here / "one.npz", "test.npz")
    audit = "audit --model nets:net --threat linf:16/255 --attack fgsm,pgd:steps=5"
    shell.run(f"{audit} --data one.npz --out disk --workers 1")
    shell.run(f"{audit} --data s3://bucket/test.npz --out store --workers 2")
    disk, store = (Result.load(here / name / "result.json") for name in ("disk", "store"))
    same = disk.per_example == store.per_example and disk.hashes["data"] == store.hashes["data"]
    print(f"{disk.examples} examples: {'the same answers' if same else 'OTHER ANSWERS'}; {store.data}")
    shell.run("verify store --model nets:net --data s3://bucket/test.npz")
    one = f"{audit} --data s3://bucket/test.npz --out wrong --workers 1"
    shell.run(one, what="another secret", AWS_SECRET_ACCESS_KEY="0" * 40)
    shell.run(one, what="no such user", AWS_ACCESS_KEY_ID="AKIA0000000000000000")
    shell.run(one, what="no credentials", AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None)
    shell.run(one, what="nobody answers", AWS_ENDPOINT_URL="http://127.0.0.1:9")
    shell.run(one.replace("test.npz", "none.npz"), what="no such object")
    shell.run(one.replace("//bucket", "//nowhere"), what="no such bucket")
    shell.run(one.replace("/test.npz", ""), what="a bucket")
    shell.run(f"{audit} --weights s3://bucket/test.npz --out wrong", what="weights there")
    put(given, here / "two.npz", "test.npz")
    shell.run(
        f"{audit} --data s3://bucket/test.npz --out store --workers 2 --resume", what="another object, and --resume"
    )
    shell.run("verify store --model nets:net --data s3://bucket/test.npz", what="another object, and verify")
    for scheme, name in (("gs", "gcsfs"), ("az", "adlfs")):
        shell.run(one.replace("s3:", f"{scheme}:"), what=f"{scheme}:// without credentials, by {name}")


if __name__ == "__main__":
    main()
