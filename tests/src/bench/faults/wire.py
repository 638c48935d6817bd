"""Long wires: wire.py DELAY_MS INDEX... in the switch's network namespace, until its input ends.

Each desktop's port goes onto a bridge of its own, from which every frame travels to the switch's bridge, and back,
in DELAY_MS. Says "laid" when all are there. This is done here, frame by frame, because not every kernel has netem.
"""

import fcntl
import heapq
import os
import select
import struct
import subprocess
import sys
import time

SET_INTERFACE = 0x400454CA
TAP_WITHOUT_HEADER = 0x0002 | 0x1000
LONGEST_FRAME = 65536
# A queue this long is a flood: what comes on top is lost, as on any wire.
FRAMES_ON_A_WIRE = 20_000
FRAMES_AT_ONCE = 64


def tap(name):
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, SET_INTERFACE, struct.pack("16sH22x", name.encode(), TAP_WITHOUT_HEADER))
    return end


def ip(line):
    subprocess.run(["ip", *line.split()], check=True)


def lay(index):
    """Two ends, each on its bridge; before the port moves, so that no frame finds a way around."""
    near, far, bridge = f"near{index}", f"far{index}", f"wire{index}"
    ends = tap(near), tap(far)
    ip(f"link add {bridge} type bridge mcast_snooping 0 stp_state 0 forward_delay 0")
    ip(f"link set {bridge} up")
    ip(f"link set {near} master {bridge} up")
    ip(f"link set {far} master br0 up")
    ip(f"link set d{index} master {bridge}")
    return ends


def take_up(index):
    ip(f"link set d{index} master br0")
    ip(f"link del wire{index}")


def carry(other, delay):
    """Moves frames from each end to its other one until standard input is closed."""
    travelling, number = [], 0
    poll = select.poll()
    for end in [sys.stdin.fileno(), *other]:
        poll.register(end, select.POLLIN | select.POLLHUP)
    while True:
        wait = None
        if travelling:
            wait = max(0, travelling[0][0] - time.monotonic()) * 1000
        ready = [end for end, _ in poll.poll(wait)]
        if sys.stdin.fileno() in ready:
            return
        now = time.monotonic()
        for end in ready:
            for _ in range(FRAMES_AT_ONCE):
                try:
                    frame = os.read(end, LONGEST_FRAME)
                except BlockingIOError:
                    break
                if len(travelling) < FRAMES_ON_A_WIRE:
                    number += 1
                    heapq.heappush(travelling, (now + delay, number, other[end], frame))
        while travelling and travelling[0][0] <= now:
            _, _, to, frame = heapq.heappop(travelling)
            try:
                os.write(to, frame)
            except OSError:
                pass  # The other end's queue is full, or its port is down: the frame is lost.


def main():
    delay, indexes = float(sys.argv[1]) / 1000, sys.argv[2:]
    other, laid = {}, []
    try:
        for index in indexes:
            laid.append(index)
            near, far = lay(index)
            other[near], other[far] = far, near
        print("laid", flush=True)
        carry(other, delay)
    finally:
        for index in laid:
            take_up(index)


main()
