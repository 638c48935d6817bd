#!/usr/bin/env python3
"""Makes NanoAOD-like files of dimuon events: Z and J/psi peaks on a falling background, the same for the same seed."""

import argparse
import os

import awkward as ak
import numpy as np
import uproot

MUON_MASS_GEV = 0.1056584
# Of the events with a pair: what the pair comes from.
Z, JPSI, BACKGROUND = 0.35, 0.25, 0.40


def pair(rng, mass):
    """The two muons of a particle with this mass, as (pt, eta, phi): a decay at rest in a random direction, boosted."""
    count = len(mass)
    momentum = np.sqrt(np.maximum(mass**2 / 4 - MUON_MASS_GEV**2, 1e-6))
    cos, azimuth = rng.uniform(-1, 1, count), rng.uniform(-np.pi, np.pi, count)
    sin = np.sqrt(1 - cos**2)
    direction = np.stack([sin * np.cos(azimuth), sin * np.sin(azimuth), cos])
    transverse, angle = rng.exponential(8.0, count) + 4.0, rng.uniform(-np.pi, np.pi, count)
    rapidity = rng.normal(0, 1.2, count)
    total = np.stack([transverse * np.cos(angle), transverse * np.sin(angle), np.hypot(mass, transverse) * np.sinh(rapidity)])
    energy = np.sqrt((total**2).sum(0) + mass**2)
    for sign in (1, -1):
        p, e = sign * momentum * direction, mass / 2
        along = (total * p).sum(0)
        boosted = p + total * (along / (mass * (energy + mass)) + e / mass)
        pt = np.hypot(boosted[0], boosted[1])
        yield pt, np.arcsinh(boosted[2] / pt), np.arctan2(boosted[1], boosted[0])


def events(rng, count):
    """The muons of so many events, as one record array per event."""
    kind = rng.uniform(size=count)
    mass = np.where(
        kind < Z,
        # A Breit-Wigner without its farthest tails, as a detector sees it.
        91.19 + 2.5 / 2 * np.tan(rng.uniform(-1.52, 1.52, count)) + rng.normal(0, 1.2, count),
        np.where(kind < Z + JPSI, rng.normal(3.097, 0.04, count), 0.3 + rng.exponential(18.0, count)),
    )
    first, second = pair(rng, np.maximum(mass, 0.25))
    charge = rng.choice([-1, 1], count)
    # In the background, one pair of seven has two of the same charge.
    same = (kind >= Z + JPSI) & (rng.uniform(size=count) < 1 / 7)
    # Of all events, some lack a muon, some have one more that is soft or hard.
    muons = rng.choice([0, 1, 2, 3], count, p=[0.05, 0.15, 0.70, 0.10])
    extra = (rng.exponential(5.0, count) + 1, rng.normal(0, 1.5, count), rng.uniform(-np.pi, np.pi, count))
    columns = {name: np.stack(values, axis=1) for name, values in zip(["pt", "eta", "phi"], zip(first, second, extra))}
    columns["charge"] = np.stack([charge, np.where(same, charge, -charge), rng.choice([-1, 1], count)], axis=1)
    columns["mass"] = np.full((count, 3), MUON_MASS_GEV)
    present = np.arange(3) < muons[:, None]
    jagged = {name: ak.unflatten(values[present], muons) for name, values in columns.items()}
    return ak.zip({name: ak.values_astype(v, np.int32 if name == "charge" else np.float32) for name, v in jagged.items()})


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--files", type=int, default=36)
    parser.add_argument("--events", type=int, default=20000, help="in each file")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    os.makedirs(arguments.out, exist_ok=True)
    for number in range(arguments.files):
        rng = np.random.default_rng([arguments.seed, number])
        muons = events(rng, arguments.events)
        path = os.path.join(arguments.out, f"dimuon-{number:03}.root")
        with uproot.recreate(path) as file:
            tree = {
                "run": np.full(len(muons), 1, np.uint32),
                "event": np.arange(len(muons), dtype=np.uint64) + number * arguments.events,
                "Muon": muons,
            }
            file.mktree("Events", {name: values.dtype if hasattr(values, "dtype") else values.type for name, values in tree.items()})
            file["Events"].extend(tree)


if __name__ == "__main__":
    main()
