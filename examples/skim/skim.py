#!/usr/bin/env python3
"""The dimuon skim: exactly two muons of opposite charge, and the mass of the pair.

One file at a time, so that every container of an Indexed Job takes one:

    skim.py select --files LIST --data DIR --out DIR   the file of this container's JOB_COMPLETION_INDEX
    skim.py merge  --files LIST --out DIR              all parts into counts.tsv and dimuon.png
    skim.py direct --files LIST --data DIR --out DIR   all of it in one process, to compare with

LIST names one file a line, relative to the data directory.
"""

import argparse
import json
import os
import sys
import tempfile

import awkward as ak
import numpy as np
import uproot

PT_MIN_GEV = 3.0
ETA_MAX = 2.4
# Equal steps in the logarithm, since the resonances span from 0.8 to 91 GeV.
EDGES_GEV = np.geomspace(0.3, 300.0, 361)
WINDOWS_GEV = {"J/psi": (2.9, 3.3), "Z": (80.0, 100.0)}
NEEDED = ["Muon_pt", "Muon_eta", "Muon_phi", "Muon_mass", "Muon_charge"]
STEPS = ["events", "two muons", "opposite charge", *WINDOWS_GEV]


def read_muons(path):
    """The muons of a NanoAOD file, as a TTree or an RNTuple; raises Skipped where there are none to read."""
    with uproot.open(path) as file:
        names = {key.split(";")[0] for key in file.keys(recursive=False)}
        if "Events" not in names:
            raise Skipped(f"no tree Events, only {', '.join(sorted(names)) or 'nothing'}")
        events = file["Events"]
        there = set(events.keys())
        missing = [name for name in NEEDED if name not in there]
        if missing:
            raise Skipped(f"Events has no {', '.join(missing)}")
        return events.arrays(NEEDED)


class Skipped(Exception):
    """A file that is in order but holds nothing for this selection."""


def select(path):
    """Counts and the mass histogram of one file."""
    muons = read_muons(path)
    good = (muons.Muon_pt > PT_MIN_GEV) & (abs(muons.Muon_eta) < ETA_MAX)
    pair = muons[ak.sum(good, axis=1) == 2]
    good = good[ak.sum(good, axis=1) == 2]
    column = {name: ak.to_numpy(pair[name][good]).reshape(-1, 2).astype(np.float64) for name in NEEDED}
    opposite = column["Muon_charge"].sum(axis=1) == 0
    mass = invariant_mass(column)[opposite]
    counts = {"events": len(muons), "two muons": len(opposite), "opposite charge": int(opposite.sum())}
    for name, (low, high) in WINDOWS_GEV.items():
        counts[name] = int(((mass > low) & (mass < high)).sum())
    return {"counts": counts, "histogram": np.histogram(mass, EDGES_GEV)[0].tolist()}


def invariant_mass(column):
    pt, eta, phi, mass = (column[f"Muon_{name}"] for name in ["pt", "eta", "phi", "mass"])
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    energy = np.sqrt(px**2 + py**2 + pz**2 + mass**2)
    square = energy.sum(1) ** 2 - px.sum(1) ** 2 - py.sum(1) ** 2 - pz.sum(1) ** 2
    return np.sqrt(np.maximum(square, 0.0))


def part_of(name, data):
    """What one file contributes, in the form that is written down."""
    try:
        return {"file": name, **select(os.path.join(data, name))}
    except Skipped as reason:
        return {"file": name, "skipped": str(reason)}


def write(path, content):
    """Whole or not at all: a container may die at any moment, and another one may do the same part again."""
    with tempfile.NamedTemporaryFile("wb", dir=os.path.dirname(path), delete=False) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def part_path(out, index):
    return os.path.join(out, "parts", f"{index:05}.json")


def merge(names, parts, out):
    """The table and the plot."""
    total, histogram = dict.fromkeys(STEPS, 0), np.zeros(len(EDGES_GEV) - 1, dtype=np.int64)
    lines = ["\t".join(["file", *STEPS, "note"])]
    for name, part in zip(names, parts):
        if part["file"] != name:
            sys.exit(f"a part is of {part['file']}, not of {name}: the list has changed meanwhile")
        if "skipped" in part:
            lines.append("\t".join([name, *["-"] * len(STEPS), f"skipped: {part['skipped']}"]))
            continue
        histogram += np.array(part["histogram"])
        lines.append("\t".join([name, *(str(part["counts"][step]) for step in STEPS), ""]))
        for step in STEPS:
            total[step] += part["counts"][step]
    lines.append("\t".join(["total", *(str(total[step]) for step in STEPS), ""]))
    write(os.path.join(out, "counts.tsv"), ("\n".join(lines) + "\n").encode())
    write(os.path.join(out, "histogram.json"), json.dumps(histogram.tolist()).encode())
    write(os.path.join(out, "dimuon.png"), plot(histogram, total))
    print(lines[0], lines[-1], sep="\n")


def plot(histogram, total):
    import io

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    axes.stairs(histogram, EDGES_GEV, fill=True, color="#4878a8")
    axes.set(xscale="log", xlabel="mass of the muon pair [GeV]", ylabel="pairs per bin")
    if histogram.any():
        axes.set(yscale="log", ylim=(0.5, 3 * histogram.max()))
    axes.set_title(f"{total['opposite charge']:,} pairs from {total['events']:,} events")
    for name, (low, high) in WINDOWS_GEV.items():
        axes.axvspan(low, high, color="#c86040", alpha=0.15)
        axes.annotate(name, ((low * high) ** 0.5, 0.95), xycoords=("data", "axes fraction"), ha="center")
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def main():
    parser = argparse.ArgumentParser(description="The dimuon skim.")
    parser.add_argument("what", choices=["select", "merge", "direct"])
    parser.add_argument("--files", required=True, help="a list with one file a line")
    parser.add_argument("--data", help="the directory the list is relative to")
    parser.add_argument("--out", required=True, help="where parts and results go")
    parser.add_argument("--index", type=int, default=os.environ.get("JOB_COMPLETION_INDEX"))
    arguments = parser.parse_args()
    with open(arguments.files) as file:
        names = file.read().split("\n")[:-1]
    if arguments.what != "merge" and arguments.data is None:
        parser.error(f"{arguments.what} needs --data")

    if arguments.what == "select":
        if arguments.index is None:
            parser.error("which file? --index or JOB_COMPLETION_INDEX says it")
        if not 0 <= arguments.index < len(names):
            parser.error(f"there is no file {arguments.index} in a list of {len(names)}")
        part = part_of(names[arguments.index], arguments.data)
        os.makedirs(os.path.join(arguments.out, "parts"), exist_ok=True)
        write(part_path(arguments.out, arguments.index), json.dumps(part).encode())
        print(json.dumps(part.get("counts", part.get("skipped"))), "from", part["file"])
    elif arguments.what == "direct":
        os.makedirs(arguments.out, exist_ok=True)
        merge(names, [part_of(name, arguments.data) for name in names], arguments.out)
    else:
        parts = []
        for index, name in enumerate(names):
            try:
                with open(part_path(arguments.out, index)) as file:
                    parts.append(json.load(file))
            except FileNotFoundError:
                sys.exit(f"the part of {name} (index {index}) is missing")
        merge(names, parts, arguments.out)


if __name__ == "__main__":
    main()
