#!/bin/bash
# Takes away everything of one bench, once its owner is gone: reap.sh NAME DIRECTORY < a pipe that the owner holds.
name=$1 dir=$2 groups=/sys/fs/cgroup
case $name in gagglebench-*) ;; *) echo "not a bench: $name" >&2; exit 2 ;; esac
cat > /dev/null

if [ -e $groups/cgroup.controllers ]; then unified=$groups hierarchies=$groups
else unified=$groups/unified hierarchies=$(find $groups -mindepth 1 -maxdepth 1 -type d); fi

if [ -d "$unified/$name" ]; then
    for _ in $(seq 1500); do
        echo 1 > "$unified/$name/cgroup.kill"
        find "$unified/$name" -name cgroup.freeze -exec sh -c 'for f; do echo 0 > "$f"; done' _ {} + 2> /dev/null
        [ -z "$(find "$unified/$name" -name cgroup.procs -exec cat {} + 2> /dev/null)" ] && break
        sleep 0.02
    done
fi
# Cables before their namespaces, whose end the kernel puts off.
for port in $(ip -n "$name-sw" -o link show type veth 2> /dev/null | sed -E 's/^[0-9]+: ([^@:]+).*/\1/'); do
    ip -n "$name-sw" link del "$port"
done
for namespace in /run/netns/"$name"-*; do
    [ -e "$namespace" ] && ip netns del "$(basename "$namespace")"
done
for hierarchy in $hierarchies; do
    [ -d "$hierarchy/$name" ] || continue
    # An emptied group may still be busy for a moment.
    for _ in $(seq 50); do
        find "$hierarchy/$name" -depth -type d -exec rmdir {} + 2> /dev/null
        [ -d "$hierarchy/$name" ] || break
        sleep 0.02
    done
done
for _ in 1 2 3 4 5; do
    rm -rf --one-file-system "$dir" && break
    sleep 0.2
done
