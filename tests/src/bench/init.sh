#!/bin/bash
# The start of a desktop, run in its fresh namespaces: mounts what must be its own, then waits as process 1.
# init.sh NAME ADDRESS
set -eu
name=$1 address=$2 groups=/sys/fs/cgroup
hostname "$name"
mount -t proc proc /proc
mount -t tmpfs -o size=64m,mode=755 tmpfs /run
mkdir -p /run/lock
# Nobody answers names at its own address, and that it learns at once: a look-up in vain costs nothing.
echo "nameserver $address" > /run/resolv.conf
mount --bind /run/resolv.conf /etc/resolv.conf

if [ "$(stat -fc %T $groups)" = cgroup2fs ]; then
    mount -t sysfs sysfs /sys
    mount -t cgroup2 cgroup2 $groups
    # Processes live in leaves only, so that the engine may share the controllers out among its containers.
    mkdir $groups/init
    for pid in $(cat $groups/cgroup.procs); do echo "$pid" > $groups/init/cgroup.procs || true; done
    for controller in $(cat $groups/cgroup.controllers); do echo "+$controller" > $groups/cgroup.subtree_control || true; done
else
    mounts=$(awk '$3 == "cgroup" && $2 ~ "^/sys/fs/cgroup/" { print $2, $4 }' /proc/mounts)
    unified=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
    mount -t sysfs sysfs /sys
    mount -t tmpfs -o mode=755 tmpfs $groups
    while read -r where options; do
        mkdir "$where"
        wanted=$(tr , '\n' <<< "$options" | grep -Ex 'name=.*|cpuset|cpu|cpuacct|memory|devices|freezer|blkio|pids|net_cls|net_prio|perf_event|hugetlb|rdma|misc' | paste -sd,)
        case $wanted in name=*) wanted=none,$wanted ;; esac
        mount -t cgroup -o "$wanted" cgroup "$where"
        base=$(basename "$where")
        case $base in *,*) for single in ${base//,/ }; do ln -s "$base" "$groups/$single"; done ;; esac
    done <<< "$mounts"
    if [ -n "$unified" ]; then mkdir -p "$unified"; mount -t cgroup2 cgroup2 "$unified"; fi
fi

# As on a desktop where nobody has set it: Docker then makes FORWARD drop.
sysctl -qw net.ipv4.ip_forward=0
exec tini -g -- sleep infinity
