"""Which epoch is the best of a phase, and what is carried into the next one."""

import dataclasses
import json

import pytest

from fgc_jax.runs.progress import Progress, parse
from fgc_jax.runs.results import Best, FinishedPhase, LrByHand
from tests import made_up


def epochs(scores, progress=None):
    """Progress after one epoch of 10 steps per score, and what each `end_epoch` said."""
    progress = progress or Progress()
    said = [
        progress.end_epoch(10 * number, score, dataclasses.asdict(made_up.metrics(100 * score)))
        for number, score in enumerate(scores, start=1)
    ]
    return progress, said


@pytest.mark.parametrize(
    ("scores", "better", "best_epoch", "stale"),
    [
        ([0.1], [True], 1, 0),
        ([0.1, 0.2, 0.3], [True] * 3, 3, 0),
        ([0.3, 0.2, 0.1], [True, False, False], 1, 2),
        ([0.2, 0.2, 0.2], [True, False, False], 1, 2),  # a tie is not better
        ([0.1, 0.05, 0.2, 0.2], [True, False, True, False], 3, 1),
        ([-2.0, -1.0, -1.5], [True, True, False], 2, 1),  # minus a loss
    ],
)
def test_the_first_of_the_highest_scores_is_the_best(scores, better, best_epoch, stale):
    progress, said = epochs(scores)
    assert said == better
    assert progress.stale == stale
    assert progress.epoch == len(scores)
    score = scores[best_epoch - 1]
    assert progress.best == Best(
        10 * best_epoch, best_epoch, score, dataclasses.asdict(made_up.metrics(100 * score))
    )


def finished():
    progress, _ = epochs([0.25, 0.5, 0.125], Progress(phase=1, phase_start=100))
    progress.seconds, progress.train_seconds, progress.train_images = 60.0, 4.0, 200
    progress.bad_images.append("a.jpg")
    progress.close_phase("second", 130)
    return progress


def test_a_closed_phase_stands_in_the_history():
    progress = finished()
    assert progress.finished
    assert progress.history == [
        FinishedPhase(
            name="second",
            epochs=3,
            steps=30,
            best_val_top1=50.0,
            best=progress.best,
            images_per_second=50.0,
            seconds=60.0,
        )
    ]


def test_a_learning_rate_set_by_hand_leaves_its_trace():
    progress, _ = epochs([0.5])
    assert progress.follow(0.01)
    assert not progress.follow(0.01)
    assert progress.lr_scale(0.1) == pytest.approx(0.1)
    progress.end_epoch(4, 0.5, dataclasses.asdict(made_up.metrics()))
    assert progress.follow(None)
    assert progress.lr_scale(0.1) == 1.0
    progress.close_phase("one", 6)
    assert progress.history[0].lr_by_hand == (LrByHand(2, 0.01), LrByHand(3, None))
    assert progress.next_phase().lr_by_hand == []


def test_a_phase_without_a_timed_step_has_no_speed():
    progress, _ = epochs([0.5])
    progress.close_phase("short", 1)
    assert progress.history[0].images_per_second == 0.0


def test_the_next_phase_begins_anew_where_this_one_ended():
    before = finished()
    assert before.next_phase() == Progress(
        phase=2, phase_start=130, bad_images=["a.jpg"], history=before.history
    )


def test_json_keeps_it_exactly():
    progress = finished()
    progress.best = Best(1, 1, 1 / 3, dataclasses.asdict(made_up.metrics(1 / 3)))
    progress.follow(0.01)
    assert parse(json.loads(json.dumps(dataclasses.asdict(progress)))) == progress
