"""A parameter sweep: targets are built, samplers run on each as soon as it is there, the best are promoted.

python sweep.py --local                        threads of this program, for a first try
python sweep.py --config local.yaml            worker processes on this machine
python sweep.py --config slurm.yaml --promote  batch jobs of a cluster, from its login node
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import report
import science

import pilotflow as pf

SAMPLERS = ("walk", "langevin")


def main() -> None:
    """Run the sweep that the command line asks for."""
    options = command_line()
    out = Path(options.out).absolute()
    logs = out / "logs"
    build = pf.python_app(science.build_target)
    sample = pf.python_app(retries=1)(science.run_sampler)
    promote = pf.python_app(science.promote)
    config = pf.Config(executors=[pf.ThreadExecutorConfig(max_threads=min(os.cpu_count() or 4, 8))])
    with pf.load(config if options.local else options.config):
        print("=== Stage A: building targets ===")
        targets = {}
        for number in range(options.targets):
            name = f"tgt_{number:03d}"
            log = build.options(stdout=logs / "build" / f"{name}.log", stderr=logs / "build" / f"{name}.err")
            targets[name] = log(name, 1.0 + 0.5 * number, 1.0, str(out / "targets"))
        print("=== Stage B: running samplers ===")
        futures = []
        for seed, (name, target) in enumerate(targets.items()):
            for sampler in SAMPLERS:  # each waits for its target, not for the others
                log = logs / "sample" / f"{name}_{sampler}"
                app = sample.options(stdout=f"{log}.log", stderr=f"{log}.err")
                futures.append(app(target, sampler, options.draws, seed))
        if options.promote:
            print("=== Stage C: promoting the best ===")
            promoted = promote(futures, str(out / "gallery"))
        rows = [future.result() for future in pf.progress(futures, "samplers")]
        if options.promote:
            print("promoted", len(promoted.result()), "results to", out / "gallery")
    out.mkdir(parents=True, exist_ok=True)
    print(len(rows), "rows in", report.write_table(rows, out))
    print("plot in", report.write_plot(rows, out))


def command_line() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--local", action="store_true", help="threads of this program")
    where.add_argument("--config", default=Path(__file__).with_name("local.yaml"), help="a configuration file")
    parser.add_argument("--targets", type=int, default=4)
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--promote", action="store_true", help="copy the best result of each target to a gallery")
    parser.add_argument("--out", default="results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
