"""Score a trained run, or results in a file."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from vertebra.structures import UsageError
from vertebra.tools.cli import check_output_file, run_tool

READ = ("val", "inference", "loader", "eval_batch_size", "engine")
"""The fields of a run's config that an evaluation reads; the model is the checkpoint's."""


def main(arguments: Sequence[str] | None = None) -> int:
    """``tools/eval.py RUN_OR_CHECKPOINT`` or ``tools/eval.py --results R.json --annotations GT.json``."""
    parser = argparse.ArgumentParser(
        prog="eval",
        description="COCO's 12 numbers and AP per class, or accuracies, of a trained run; or of COCO results.",
        epilog="examples: python tools/eval.py runs/quickstart;  "
        "python tools/eval.py --results results.json --annotations instances_val2017.json",
    )
    parser.add_argument("run", nargs="?", help="a run folder or a checkpoint")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here too")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a field of the config")
    parser.add_argument("--results", type=Path, metavar="FILE", help="score these COCO results, without a model")
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="the ground truth of --results")
    parser.add_argument("--task", choices=("bbox", "segm", "boundary"), default="bbox", help="what --results holds")
    parser.add_argument("--engine", choices=("hotcoco", "pycocotools"), help="what computes the numbers")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--bad-data", choices=("error", "skip"), default="error", help="stop at bad data, or skip it")
    options = parser.parse_args(arguments)
    if (options.run is None) == (options.results is None):
        parser.error("give a run or --results, one of them")
    if (options.results is None) != (options.annotations is None):
        parser.error("--results and --annotations go together")

    from vertebra.evaluation import format_scores

    if options.json is not None:
        check_output_file(options.json)
    scores, facts = _score_file(options) if options.run is None else _score_run(options)
    for kind, each in scores.items():
        print(format_scores(each, kind))
    if options.json is not None:
        from vertebra.engine import scores_as_json, write_json

        write_json(options.json, scores_as_json(scores, **facts))
    return 0


def _score_file(options: argparse.Namespace):
    from vertebra.evaluation import evaluate_coco, read_ground_truth, read_results

    truth = read_ground_truth(options.annotations)
    results = read_results(options.results, truth)
    scores = evaluate_coco(truth, results, engine=options.engine or "hotcoco", task=options.task)
    facts = {"task": options.task, "images": len(truth["images"]), "results": str(options.results)}
    return {options.task: scores}, facts


def _score_run(options: argparse.Namespace):
    from vertebra.data import build_dataset, require_same_classes
    from vertebra.engine import (
        evaluate,
        load_checkpoint_model,
        open_checkpoint,
        override,
        pick_device,
        pick_task,
        require_truth,
    )

    checkpoint = open_checkpoint(options.run)
    engine = [] if options.engine is None else [f"engine={options.engine}"]
    config = override(checkpoint.config, [*options.set, *engine])
    for key in (assignment.partition("=")[0].strip() for assignment in options.set):
        if key.split(".")[0] not in READ:
            raise UsageError(f"--set {key}: evaluation does not read it", f"it reads {', '.join(READ)}")
    model = load_checkpoint_model(checkpoint, pick_device(options.device))
    dataset = build_dataset(config.val.dataset, options.bad_data)
    require_same_classes(checkpoint.classes, dataset.classes, ("the model", "the data"))
    require_truth(config.model.head, dataset)
    found = evaluate(pick_task(model.head, dataset.classes, config.inference), model, dataset, config)
    assert found is not None, "this process is the only one"
    return found[1], {"step": checkpoint.step, "images": len(dataset)}


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
