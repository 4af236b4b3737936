"""Score a trained run, or results in a file."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from vertebra.tools.cli import run_tool


def main(arguments: Sequence[str] | None = None) -> int:
    """``tools/eval.py RUN_OR_CHECKPOINT`` or ``tools/eval.py --results R.json --annotations GT.json``."""
    parser = argparse.ArgumentParser(
        prog="eval",
        description="COCO's 12 numbers and AP per class, of a trained run or of results in a file.",
        epilog="examples: python tools/eval.py runs/quickstart;  "
        "python tools/eval.py --results results.json --annotations instances_val2017.json",
    )
    parser.add_argument("run", nargs="?", help="a run folder or a checkpoint")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here too")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a field of the config")
    parser.add_argument("--results", type=Path, metavar="FILE", help="score these COCO results, without a model")
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="the ground truth of --results")
    parser.add_argument("--task", choices=("bbox", "segm"), default="bbox", help="what --results holds")
    parser.add_argument("--engine", choices=("hotcoco", "pycocotools"), help="what computes the numbers")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--bad-data", choices=("error", "skip"), default="error", help="stop at bad data, or skip it")
    options = parser.parse_args(arguments)
    if (options.run is None) == (options.results is None):
        parser.error("give a run or --results, one of them")
    if (options.results is None) != (options.annotations is None):
        parser.error("--results and --annotations go together")

    from vertebra.evaluation import format_scores

    scores, facts = _score_file(options) if options.run is None else _score_run(options)
    print(format_scores(scores))
    if options.json is not None:
        from vertebra.engine import scores_as_json, write_json

        write_json(options.json, scores_as_json(scores, task=options.task, **facts))
    return 0


def _score_file(options: argparse.Namespace):
    from vertebra.evaluation import evaluate_coco, read_ground_truth, read_results

    truth = read_ground_truth(options.annotations)
    results = read_results(options.results, truth)
    scores = evaluate_coco(truth, results, engine=options.engine or "hotcoco", task=options.task)
    return scores, {"images": len(truth["images"]), "results": str(options.results)}


def _score_run(options: argparse.Namespace):
    from vertebra.data import build_dataset, eval_loader
    from vertebra.engine import (
        collect_results,
        load_checkpoint_model,
        open_checkpoint,
        override,
        pick_device,
        score_results,
    )

    checkpoint = open_checkpoint(options.run)
    config = override(checkpoint.config, options.set)
    model = load_checkpoint_model(checkpoint, pick_device(options.device))
    dataset = build_dataset(config.val.dataset, options.bad_data)
    batches = eval_loader(
        dataset, config.val.transform, config.loader, batch_size=config.eval_batch_size, divisor=model.size_divisor
    )
    results = collect_results(model, batches, dataset.category_ids)
    scores = score_results(dataset, results, options.engine or config.engine)
    return scores, {"step": checkpoint.step, "images": len(dataset)}


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
