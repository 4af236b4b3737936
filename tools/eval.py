"""Score a trained run, or results in a file."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from vertebra.structures import UsageError
from vertebra.tools.cli import check_output_file, errors_from_local_rank_zero, run_tool

READ = ("val", "evaluation.engine", "evaluation.boundary")
"""The fields of a config that scoring a file reads."""
READ_WITH_MODEL = (
    "val",
    "evaluation.batch_size",
    "evaluation.engine",
    "evaluation.boundary",
    "evaluation.inference",
    "run.loader",
    "recipe.precision",
    "recipe.deterministic",
)
"""The fields of a run's config that an evaluation reads; the model is the checkpoint's."""


def main(arguments: Sequence[str] | None = None) -> int:
    """``tools/eval.py RUN_OR_CHECKPOINT``, or ``--results R.json`` with one of a run, ``--data`` and
    ``--annotations``. The processes that ``torchrun`` starts share a run's images, and the first one tells."""
    options = _parse(arguments)

    from vertebra.evaluation import format_scores

    if options.json is not None:
        with errors_from_local_rank_zero():
            check_output_file(options.json)
    if options.annotations is not None:
        found = _score_coco_results(options)
    else:
        found = _score_run(options) if options.results is None else _score_results(options)
    if found is None:
        return 0
    scores, facts = found
    for kind, each in scores.items():
        print(format_scores(each, kind))
    if options.json is not None:
        from vertebra.engine import scores_as_json, write_json

        write_json(options.json, scores_as_json(scores, **facts))
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="eval",
        description="Score a trained run on its val data, or a results file of any task without a model: the numbers "
        "of COCO or PASCAL VOC, IoUs of classes, or accuracies; and the first of them for each class.",
        epilog="examples: python tools/eval.py runs/quickstart;  "
        "python tools/eval.py runs/quickstart --results results.json;  "
        "python tools/eval.py --data deeplabv3plus_r50_camvid --results results.json;  "
        "python tools/eval.py --annotations instances_val2017.json --results results.json --task segm",
    )
    parser.add_argument("run", nargs="?", help="a run folder or a checkpoint")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here too")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a field of the config")
    parser.add_argument("--results", type=Path, metavar="FILE", help="score these results, without a model")
    parser.add_argument("--data", metavar="CONFIG", help="a config (name or file) whose val data --results is about")
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="the COCO file that --results is about")
    parser.add_argument(
        "--task", choices=("bbox", "segm", "boundary"), help="what of --annotations to score (default bbox)"
    )
    parser.add_argument("--engine", choices=("hotcoco", "pycocotools"), help="what computes the numbers")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where the model runs (default auto)")
    parser.add_argument(
        "--bad-data", choices=("error", "skip"), help="stop at bad data, or skip it (default: as the config says)"
    )
    options = parser.parse_args(arguments)
    _check_together(parser, options)
    return options


def _check_together(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse an option that another one makes nothing of."""
    if sum(truth is not None for truth in (options.run, options.data, options.annotations)) != 1:
        parser.error("give a run, --data or --annotations, one of them")
    if options.results is None and options.run is None:
        parser.error("--data and --annotations are what --results is about: give it too")
    if options.annotations is None and options.task is not None:
        parser.error("--task goes with --annotations: of other data all is scored that the results hold")
    if options.annotations is not None and options.set:
        parser.error("--set changes a config, and --annotations has none")
    if options.annotations is not None and options.bad_data is not None:
        parser.error("--bad-data goes with the data of a config: of --annotations all must be fine")
    if options.results is not None and options.device is not None:
        parser.error("--device is where a model runs, and --results needs none")
    if options.task == "boundary" and options.engine == "hotcoco":
        parser.error("--task boundary has one engine, pycocotools: leave out --engine")


def _score_coco_results(options: argparse.Namespace):
    from vertebra.evaluation import add_file_to_error, evaluate_coco, open_results, read_ground_truth

    task = options.task or "bbox"
    truth = read_ground_truth(options.annotations)
    with add_file_to_error(options.annotations), open_results(options.results) as results:
        scores = evaluate_coco(truth, results, engine=options.engine or "hotcoco", task=task)
    return {task: scores}, {"task": task, "images": len(truth["images"]), "results": str(options.results)}


def _score_results(options: argparse.Namespace):
    """A results file on the ``val`` data of a run or another config."""
    from vertebra.configs import load_config
    from vertebra.data import build_dataset
    from vertebra.engine import open_checkpoint, score_results

    config = load_config(options.data) if options.run is None else open_checkpoint(options.run).config
    config = _changed(config, options, READ)
    dataset = build_dataset(config.val.dataset, config.val.bad_data)
    scores = score_results(options.results, dataset, config.evaluation.engine)
    return scores, {"images": len(dataset), "results": str(options.results)}


def _score_run(options: argparse.Namespace):
    """A run's model on its ``val`` data; None where another process tells."""
    from vertebra.data import build_dataset, require_same_classes
    from vertebra.engine import (
        evaluate,
        init_distributed,
        load_checkpoint_model,
        open_checkpoint,
        pick_device,
        pick_task,
        require_targets,
    )

    with errors_from_local_rank_zero():
        device = pick_device(options.device or "auto")
    with init_distributed(device) as processes:
        with processes.fail_together():
            checkpoint = open_checkpoint(options.run)
            config = _changed(checkpoint.config, options, READ_WITH_MODEL)
            model = load_checkpoint_model(checkpoint, processes.device)
            dataset = build_dataset(config.val.dataset, config.val.bad_data)
            require_same_classes(checkpoint.classes, dataset.classes, ("the model", "the data"))
            require_targets(config.model.head, dataset)
            task = pick_task(model.head, dataset.classes, config.evaluation.inference)
        found = evaluate(task, model, dataset, config, processes)
    return None if found is None else (found[1], {"step": checkpoint.step, "images": len(dataset)})


def _changed(config, options: argparse.Namespace, read: Sequence[str]):
    """The config with the options' changes; UsageError for one that changes nothing."""
    from vertebra.engine import override

    flags = [] if options.engine is None else [f"evaluation.engine={options.engine}"]
    if options.bad_data is not None:
        flags.append(f"val.bad_data={options.bad_data}")
    config = override(config, [*options.set, *flags])
    for key in (assignment.partition("=")[0].strip() for assignment in options.set):
        if not any(f"{key}.".startswith(f"{field}.") for field in read):
            raise UsageError(f"--set {key}: evaluation does not read it", f"it reads {', '.join(read)}")
    return config


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
