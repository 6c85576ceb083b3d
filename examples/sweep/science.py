"""What the sweep computes: targets (densities of two hills), and samplers that estimate a mean over them.

Plain Python without dependencies, so that it runs wherever Python does.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path


def build_target(name: str, distance: float, width: float, directory: str) -> dict:
    """Stage A: a density with hills at -distance and +distance, and what samplers should find.

    The mean of x squared is integrated on a grid; everything is written to `directory/name.json`.
    """
    print(f"building {name}: distance {distance}, width {width}")
    target = {"name": name, "distance": distance, "width": width}
    steps = [i * 0.001 - 12.0 for i in range(24_001)]
    weights = [math.exp(log_density(target, x)) for x in steps]
    target["truth"] = sum(w * x * x for w, x in zip(weights, steps, strict=True)) / sum(weights)
    path = Path(directory, f"{name}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(target, indent=2))
    return target


def log_density(target: dict, x: float) -> float:
    """The logarithm of the target's density at x, but for a constant."""
    left, right = ((x - centre) / target["width"] for centre in (-target["distance"], target["distance"]))
    top = max(-left * left / 2, -right * right / 2)
    return top + math.log(math.exp(-left * left / 2 - top) + math.exp(-right * right / 2 - top))


def slope(target: dict, x: float) -> float:
    """Its derivative."""
    step = 1e-4
    return (log_density(target, x + step) - log_density(target, x - step)) / (2 * step)


def run_sampler(target: dict, sampler: str, draws: int, seed: int) -> dict:
    """Stage B: a chain of so many draws; what it estimates, and how far that is from the truth."""
    print(f"{sampler} on {target['name']}: {draws} draws")
    dice = random.Random(seed)
    step = {"walk": 2.0, "langevin": 0.9}[sampler] * target["width"]
    x, here, total, accepted = 0.0, log_density(target, 0.0), 0.0, 0
    for _ in range(draws):
        if sampler == "walk":
            new, correction = x + dice.gauss(0, step), 0.0
        else:
            ahead = x + step * step / 2 * slope(target, x)
            new = ahead + dice.gauss(0, step)
            back = new + step * step / 2 * slope(target, new)
            correction = ((new - ahead) ** 2 - (x - back) ** 2) / (2 * step * step)
        there = log_density(target, new)
        if math.log(dice.random() or 1e-300) < there - here + correction:
            x, here, accepted = new, there, accepted + 1
        total += x * x
    estimate = total / draws
    return {
        "target": target["name"],
        "sampler": sampler,
        "draws": draws,
        "estimate": estimate,
        "truth": target["truth"],
        "error": abs(estimate - target["truth"]) / target["truth"],
        "acceptance": accepted / draws,
    }


def promote(rows: list, directory: str) -> list:
    """Stage C: the best row of each target, written to `directory`; the paths."""
    best: dict = {}
    for row in rows:
        if row["target"] not in best or row["error"] < best[row["target"]]["error"]:
            best[row["target"]] = row
    Path(directory).mkdir(parents=True, exist_ok=True)
    paths = []
    for name, row in sorted(best.items()):
        path = Path(directory, f"{name}.json")
        path.write_text(json.dumps(row, indent=2))
        paths.append(str(path))
    return paths
