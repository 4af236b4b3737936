"""``benchmark``: what it measures, in which order; times are not judged."""

from dataclasses import replace

import torch

from vertebra.tools import benchmark
from vertebra.tools.benchmark import Case, alternate
from vertebra.tools.cli import main


def test_functions_are_timed_alternately():
    """By hand: one warm-up round that is not counted, then two rounds, each function in turn."""
    calls = []
    functions = [lambda name=name: calls.append(name) for name in "abc"]
    seconds = alternate(functions, 2, torch.device("cpu"), "cpu")
    assert "".join(calls) == "abc" * 3
    assert [len(record) for record in seconds] == [2, 2, 2]


def test_sweep_shows_the_worst_ratio_first(monkeypatch, capsys):
    """By hand: two cases of a segmenter, with every kind of work; the table is sorted by the ratio."""
    monkeypatch.setattr(benchmark, "SWEEP", (Case((33, 40), 1, 0), Case((40, 33), 2, 0)))
    arguments = ["--model", "deeplabv3", "--rounds", "1", "--clock", "cpu", "--device", "cpu"]
    assert main(["benchmark", "--sweep", *arguments]) == 0
    shown = capsys.readouterr().out
    table = shown[shown.index("┡") :]
    ratios = [float(line.split("│")[1]) for line in table.splitlines() if line.startswith("│")]
    assert len(ratios) == 4 and ratios == sorted(ratios, reverse=True)
    assert "2 x 40x33, 0 objects: training step" in shown


def test_full_sweep_measures_every_combination():
    """By hand: four sizes, three batches and three numbers of objects."""
    one = benchmark.Options("fcos", (2, 3), 4, 5, 1, "cpu", "wall", None, False, sweep=False, full=False)
    assert one.cases() == [Case((2, 3), 4, 5)]
    assert replace(one, sweep=True).cases() == list(benchmark.SWEEP)
    assert len(set(replace(one, sweep=True, full=True).cases())) == 36


def test_full_without_sweep_is_refused(capsys):
    """By hand: exit code 2."""
    assert main(["benchmark", "--full"]) == 2
    assert "--full needs --sweep" in capsys.readouterr().err
