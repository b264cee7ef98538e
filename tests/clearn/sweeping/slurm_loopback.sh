#!/usr/bin/env bash
# A real SLURM of two nodes with one core each on this machine: slurm_loopback.sh start DIR | stop DIR
# Needs root and Debian's slurm-wlm and munge. Process ids are in DIR/*.pid; there is no accounting database.
set -euo pipefail
dir=$(mkdir -p "$2" && cd "$2" && pwd)
stop() {
  for name in slurmd-n1 slurmd-n2 slurmctld munged; do
    [ -f "$dir/$name.pid" ] && kill "$(cat "$dir/$name.pid")" 2>/dev/null || true
    rm -f "$dir/$name.pid"
  done
}
[ "$1" = stop ] && { stop; exit 0; }
mkdir -p "$dir"/{ctld,d/n1,d/n2,log,munge}
head -c 1024 /dev/urandom > "$dir/munge/key"
chmod 700 "$dir/munge"
chmod 400 "$dir/munge/key"
munged --force --key-file="$dir/munge/key" --pid-file="$dir/munged.pid" --log-file="$dir/log/munged.log" \
  --seed-file="$dir/munge/seed" --socket="$dir/munge/socket" 2>/dev/null
cat > "$dir/slurm.conf" <<CONF
ClusterName=loopback
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmctldPort=26817
StateSaveLocation=$dir/ctld
SlurmdSpoolDir=$dir/d/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=10
KillWait=5
MailProg=/bin/true
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port=26818 CPUs=1 RealMemory=4000
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port=26819 CPUs=1 RealMemory=4000
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF="$dir/slurm.conf"
slurmctld
slurmd -N n1
slurmd -N n2
for _ in $(seq 60); do
  [ "$(sinfo -h -t idle -o %D 2>/dev/null)" = 2 ] && exit 0
  sleep 0.5
done
sinfo >&2
exit 1
