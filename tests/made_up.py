"""Results for tests: of any run, with what a test is about put in."""

import dataclasses
from typing import Any

from fgc_jax.runs.results import Best, Evaluation, FinishedPhase, Metrics, Results


def metrics(top1: float = 50.0, **changes: Any) -> Metrics:
    values = {"loss": 1.0, "top5": 100.0, "mean_class_accuracy": top1, "ece": 3.5}
    return Metrics(**{"images": 6, "unreadable": 0, "top1": top1, **values, **changes})


def evaluation(**changes: Any) -> Evaluation:
    return Evaluation(12, "test", "raw", metrics(**changes))


def best(step: int = 4, epoch: int = 1, score: float = 0.5) -> Best:
    return Best(step, epoch, score, dataclasses.asdict(metrics()))


def phase(**changes: Any) -> FinishedPhase:
    values = {"name": "head", "epochs": 2, "steps": 6, "best_val_top1": 50.0, "best": best()}
    values |= {"images_per_second": 7.0, "seconds": 9.0}
    return FinishedPhase(**{**values, **changes})


def results(*phases: FinishedPhase, **changes: Any) -> Results:
    values = {"config": {}, "dataset": "folder", "num_classes": 3, "pretrained": None}
    values |= {"params": 11_200_000, "forward_gflops": 2.0, "bad_images": (), "complete": True}
    return Results(phases=phases or (phase(),), **{**values, **changes})
