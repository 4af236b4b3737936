"""Score a trained model, or a results file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vertebra.tools.cli import CONTEXT, check_output_file, errors_from_local_rank_zero, run_command
from vertebra.tools.options import (
    bad_data_option,
    complete_config,
    device_option,
    import_option,
    like_option,
    offline_option,
    optimize_option,
    set_option,
)

if TYPE_CHECKING:
    from vertebra.engine import ExperimentConfig
    from vertebra.evaluation import Scores
    from vertebra.inference import OptimizedPrecision

FIELDS_OF_RESULTS = (
    "val",
    "evaluation.engine",
    "evaluation.max_detections",
    "evaluation.boundary",
    "evaluation.keypoint_sigmas",
)
"""The config fields that scoring a results file reads."""
FIELDS_OF_RUN = (
    "val",
    "evaluation.batch_size",
    "evaluation.engine",
    "evaluation.max_detections",
    "evaluation.boundary",
    "evaluation.keypoint_sigmas",
    "evaluation.inference",
    "evaluation.detection",
    "run.loader",
    "recipe.precision",
    "recipe.deterministic",
)
"""The config fields that evaluating a run reads; the model comes from the checkpoint."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command line."""

    model: str | None
    json: Path | None
    assignments: tuple[str, ...]
    results: Path | None
    data: str | None
    annotations: Path | None
    task: str | None
    engine: str | None
    like: str | None
    device: str
    optimize: "OptimizedPrecision | None"
    bad_data: str | None
    imports: tuple[str, ...]


@click.command(
    "eval",
    context_settings=CONTEXT,
    short_help="Score a trained model, or results in a file.",
    epilog="""\b
    Examples:
      vertebra eval runs/quickstart
      vertebra eval torchvision/maskrcnn_resnet50_fpn_v2 --data mask_rcnn_r50_fpn_1x_coco
      vertebra eval runs/quickstart --results results.json
      vertebra eval --data deeplabv3plus_r50_camvid --results results.json
      vertebra eval --annotations instances_val2017.json --results results.json --task segm""",
)
@click.argument("model", metavar="[MODEL]", required=False, type=click.Path())
@click.option("--json", type=click.Path(path_type=Path), metavar="FILE", help="Also write the scores to this file.")
@set_option
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Score the results in this file, without a model.",
)
@click.option(
    "--data",
    metavar="CONFIG",
    shell_complete=complete_config,
    help="Score MODEL or --results on the val data of this config (a shipped name or a file).",
)
@click.option(
    "--annotations",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Score --results against this COCO annotation file.",
)
@click.option(
    "--task",
    type=click.Choice(("bbox", "segm", "boundary", "keypoints")),
    show_default="bbox",
    help="What to score against --annotations.",
)
@click.option(
    "--engine",
    type=click.Choice(("hotcoco", "pycocotools")),
    show_default="as in the config",
    help="The library that computes the COCO metrics; both give identical numbers.",
)
@like_option
@offline_option
@device_option
@optimize_option
@bad_data_option
@import_option
@click.pass_context
def command(context: click.Context, **values: Any) -> None:
    """Score a trained model on val data, or a results file of any task without a model.

    Shows the metrics of the task (COCO or PASCAL VOC AP, IoU, or accuracy), and the main metric for each class. MODEL
    is a run folder or a checkpoint, which is scored on the run's own val data unless --data is given; a published model
    (see vertebra list models); or a file of weights. Under torchrun each process predicts a shard of the images.
    """
    options = Options(**values)
    _check_combination(options, device_given=_is_given(context, "device"))

    from vertebra.evaluation import format_scores

    if options.json is not None:
        with errors_from_local_rank_zero():
            check_output_file(options.json)
    if options.annotations is not None:
        scored = _score_against_annotations(options)
    elif options.results is not None:
        scored = _score_results(options)
    else:
        scored = _score_model(options)
    if scored is None:
        return
    scores, facts = scored
    if options.json is not None:
        from vertebra.evaluation import scores_as_json
        from vertebra.formats import write_json

        write_json(options.json, scores_as_json(scores, **facts))
    for name, numbers in scores.items():
        click.echo(format_scores(numbers, name))


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _check_combination(options: Options, device_given: bool) -> None:
    """Raise click's UsageError if options are missing, contradict each other, or would have no effect."""
    if options.annotations is not None and (options.model is not None or options.data is not None):
        raise click.UsageError("--annotations is ground truth for --results alone: leave out MODEL and --data")
    if options.annotations is None and options.data is None and options.model is None:
        raise click.UsageError("give MODEL, --data or --annotations")
    if options.results is None and options.model is None:
        raise click.UsageError("--data and --annotations are ground truth to score: add MODEL or --results")
    if options.results is not None and options.model is not None and options.data is not None:
        raise click.UsageError("--results needs one ground truth: leave out MODEL or --data")
    if options.like is not None and (options.model is None or options.results is not None):
        raise click.UsageError("--like describes MODEL, a file of weights that predicts: it has no effect here")
    if options.annotations is None and options.task is not None:
        raise click.UsageError("--task needs --annotations; with MODEL or --data everything in the results is scored")
    if options.annotations is not None and options.assignments:
        raise click.UsageError("--set has no effect with --annotations, which uses no config")
    if options.annotations is not None and options.bad_data is not None:
        raise click.UsageError("--bad-data has no effect with --annotations, whose data must all be valid")
    if options.results is not None and device_given:
        raise click.UsageError("--device has no effect with --results, which needs no model")
    if options.results is not None and options.optimize is not None:
        raise click.UsageError("--optimize has no effect with --results, which needs no model")
    if options.task == "boundary" and options.engine == "hotcoco":
        raise click.UsageError("--engine has no effect with --task boundary: leave out --engine")


Scored = tuple[Mapping[str, "Scores"], dict[str, Any]]


def _score_against_annotations(options: Options) -> Scored:
    """Score a results file against a COCO annotation file."""
    from vertebra.evaluation import evaluate_coco
    from vertebra.formats import add_file_to_error, open_results, read_ground_truth, require_same_images

    task = options.task or "bbox"
    assert options.annotations is not None and options.results is not None, "the options were checked"
    truth = read_ground_truth(options.annotations)
    require_same_images(options.results, {image["id"]: str(image.get("file_name", "")) for image in truth["images"]})
    with add_file_to_error(options.annotations), open_results(options.results) as results:
        scores = evaluate_coco(truth, results, engine=options.engine or "hotcoco", task=task)
    return {task: scores}, {"task": task, "images": len(truth["images"]), "results": str(options.results)}


def _score_results(options: Options) -> Scored:
    """Score a results file on the ``val`` data of a run or another config."""
    from vertebra.configs import load_config
    from vertebra.data import build_dataset
    from vertebra.engine import score_results, stored_config
    from vertebra.inference import import_user_code, open_model

    assert options.results is not None, "the options were checked"
    for name in options.imports:
        import_user_code(name)
    if options.model is not None:
        config = stored_config(open_model(options.model))
    else:
        assert options.data is not None, "the options were checked"
        config = load_config(options.data)
    config = _changed(config, options, FIELDS_OF_RESULTS)
    dataset = build_dataset(config.val.dataset, config.val.bad_data)
    scores = score_results(options.results, dataset, config.model.head, config.evaluation)
    return scores, {"images": len(dataset), "results": str(options.results)}


def _score_model(options: Options) -> Scored | None:
    """Score a model on the ``val`` data of its run or of ``--data``; return None on ranks other than zero."""
    from rich.console import Console

    from vertebra.configs import load_config
    from vertebra.engine import ExperimentConfig, config_for_data, evaluate_trained, stored_config
    from vertebra.inference import TrainedModel, import_user_code, open_model
    from vertebra.structures import pick_device

    assert options.model is not None, "the options were checked"
    model = options.model
    with errors_from_local_rank_zero():
        device = pick_device(options.device)

    def prepare() -> tuple[TrainedModel, ExperimentConfig]:
        for name in options.imports:
            import_user_code(name)
        trained = open_model(model, options.like)
        data = None if options.data is None else load_config(options.data)
        config = stored_config(trained) if data is None else config_for_data(trained, data)
        return trained, _changed(config, options, FIELDS_OF_RUN)

    scored = evaluate_trained(prepare, device, optimize=options.optimize, console=Console(stderr=True))
    if scored is None:
        return None
    step = {} if scored.step is None else {"step": scored.step}
    return scored.scores, {**step, "images": scored.images}


def _changed(config: "ExperimentConfig", options: Options, read: Sequence[str]) -> "ExperimentConfig":
    """Return the config with the changes of ``--set``, ``--engine`` and ``--bad-data``.

    Raises UsageError if ``--set`` changes a field that is not in ``read``, since that would have no effect.
    """
    from vertebra.engine import override
    from vertebra.structures import UsageError

    flags = [] if options.engine is None else [f"evaluation.engine={options.engine}"]
    if options.bad_data is not None:
        flags.append(f"val.bad_data={options.bad_data}")
    config = override(config, [*options.assignments, *flags])
    for key in (assignment.partition("=")[0].strip() for assignment in options.assignments):
        if not any(f"{key}.".startswith(f"{field}.") for field in read):
            raise UsageError(f"--set {key} has no effect on this evaluation", f"it only reads {', '.join(read)}")
    return config


if __name__ == "__main__":
    raise SystemExit(run_command(command))
