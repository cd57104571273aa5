#!/usr/bin/env bash
# A Slurm cluster of one node on this machine, and an audit on it.
#
#   apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
#   benchmarks/slurm_local.sh [signstep audit options]
#
# As root. Everything lies in a folder of its own and is stopped at the end: munged, slurmctld and slurmd, on loopback,
# with a key made for the occasion. No accounting: submitit tells the end of a job by the answer that it leaves.
set -euo pipefail

case "${1:-}" in -h | --help) sed -n '2,8p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;; esac

place=$(mktemp -d)
node=$(hostname -s)
cores=$(nproc)
begun=()

stop() {
    for ((i = ${#begun[@]} - 1; i >= 0; i--)); do
        kill "${begun[i]}" 2>/dev/null || true
    done
    sleep 1
    rm -rf "$place"
}
trap stop EXIT

mkdir -p "$place"/{munge,state,spool}
chmod 755 "$place"
chmod 700 "$place/munge"
dd if=/dev/urandom of="$place/munge/key" bs=1024 count=1 status=none
chmod 400 "$place/munge/key"
munged --foreground --force --key-file="$place/munge/key" --socket="$place/munge.socket" \
    --pid-file="$place/munge/pid" --log-file="$place/munge/log" --seed-file="$place/munge/seed" >"$place/munge.out" 2>&1 &
begun+=($!)

cat >"$place/slurm.conf" <<CONF
ClusterName=loopback
SlurmctldHost=$node(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$place/munge.socket
CredType=cred/munge
SlurmctldPort=16817
SlurmdPort=16818
SlurmctldPidFile=$place/slurmctld.pid
SlurmdPidFile=$place/slurmd.pid
StateSaveLocation=$place/state
SlurmdSpoolDir=$place/spool
SlurmctldLogFile=$place/slurmctld.log
SlurmdLogFile=$place/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=$node NodeAddr=127.0.0.1 Sockets=1 CoresPerSocket=$cores ThreadsPerCore=1 State=UNKNOWN
PartitionName=audits Nodes=$node Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
CONF
export SLURM_CONF="$place/slurm.conf"

sleep 1
slurmctld -D >"$place/ctld.out" 2>&1 &
begun+=($!)
sleep 2
slurmd -D -N "$node" >"$place/d.out" 2>&1 &
begun+=($!)

for _ in $(seq 30); do
    sinfo -h -o '%T' 2>/dev/null | grep -q idle && break
    sleep 1
done
if ! sinfo -h -o '%T' | grep -q idle; then
    echo "the node did not come up" >&2
    tail -5 "$place"/*.out "$place"/*.log >&2
    exit 1
fi
sbatch --version
sinfo

signstep="${SIGNSTEP:-signstep}"
options=("$@")
[ ${#options[@]} -gt 0 ] || options=(--limit 300 --attack fgsm,pgd:steps=10)
$signstep audit "${options[@]}" --out "$place/plain" --workers 1 >/dev/null
$signstep audit "${options[@]}" --out "$place/slurm" --on slurm --partition audits --workers 2
python - "$place" <<'CHECK'
import sys
from pathlib import Path

from signstep.auditing.result import Result
from signstep.scale import digest

one, two = (digest(Result.load(Path(sys.argv[1]) / name / "result.json")) for name in ("plain", "slurm"))
print("Slurm and one process:", "the same record" if one == two else "RECORDS DIFFER", one[:16], two[:16])
CHECK
