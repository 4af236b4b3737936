"""Train a model from a config."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from vertebra.tools.cli import errors_from_local_rank_zero, run_tool


def main(arguments: Sequence[str] | None = None) -> int:
    """``tools/train.py CONFIG [--set a.b=v]... [--output DIR] [--resume] [--profile]``."""
    parser = argparse.ArgumentParser(
        prog="train",
        description="Train a model, evaluate it and draw what it finds. Everything is written to one run folder.",
        epilog="example: python tools/train.py configs/quickstart.py --set recipe.schedule.steps=20",
    )
    parser.add_argument("config", help="a config file, or the name of a shipped one (see tools/list.py configs)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a field of the config")
    parser.add_argument("--output", type=Path, help="the run folder (default: runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="continue the run in the folder")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--bad-data",
        choices=("error", "skip"),
        help="stop at bad data, or skip it: sets train.bad_data and val.bad_data (default: as the config says)",
    )
    parser.add_argument("--profile", action="store_true", help="write a trace of a few steps to the run folder")
    options = parser.parse_args(arguments)

    from vertebra.configs import load_config
    from vertebra.engine import override, pick_device, train

    with errors_from_local_rank_zero():
        changes = options.set
        if options.bad_data is not None:
            changes = [f"train.bad_data={options.bad_data}", f"val.bad_data={options.bad_data}", *changes]
        config = override(load_config(options.config), changes)
        device = pick_device(options.device)
    train(
        config,
        options.output or Path("runs") / config.name,
        resume=options.resume,
        device=device,
        profile=options.profile,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
