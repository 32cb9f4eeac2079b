"""The progress of a run: saved as JSON in each checkpoint."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from fgc_jax.runs import results
from fgc_jax.runs.results import Best, FinishedPhase, LrByHand


@dataclasses.dataclass
class Progress:
    """The current phase, its epoch, its best epoch, and the finished phases."""

    phase: int = 0
    phase_start: int = 0  # global step
    epoch: int = 0  # completed in this phase
    best: Best | None = None  # of this phase
    stale: int = 0  # epochs since the best one
    plateau_scale: float = 1.0  # of the learning rate, by the schedule "plateau"
    plateau_stale: int = 0  # epochs since the best one or the last reduction
    lr_override: float | None = None  # the learning rate set by hand: see `override`
    lr_by_hand: list[LrByHand] = dataclasses.field(default_factory=list)  # in this phase
    epochs_of_phases: list[int] = dataclasses.field(default_factory=list)  # to train, of all phases
    averaged: bool = False  # whether this phase's result is its averaged weights
    finished: bool = False  # this phase
    seconds: float = 0.0  # of this phase
    train_seconds: float = 0.0  # of its train steps, compilation and validation left out
    train_images: int = 0  # in those seconds
    bad_images: list[str] = dataclasses.field(default_factory=list)  # names, all phases
    history: list[FinishedPhase] = dataclasses.field(default_factory=list)  # finished phases

    def end_epoch(self, step: int, score: float | None, val: Mapping[str, float] | None) -> bool:
        """Counts an epoch. Returns whether its score (greater is better) is the best of the phase
        so far. A score of None means that there was no validation."""
        self.epoch += 1
        if score is None:
            return False
        better = self.best is None or score > self.best.score
        if better:
            self.best = Best(step, self.epoch, score, val)
        self.stale = 0 if better else self.stale + 1
        return better

    def end_plateau_epoch(self, better: bool, factor: float, patience: int) -> bool:
        """Counts an epoch of the schedule "plateau". After more than `patience` epochs in a row
        that were not better it multiplies the learning rate by `factor`, and returns True."""
        self.plateau_stale = 0 if better else self.plateau_stale + 1
        if self.plateau_stale <= patience:
            return False
        self.plateau_scale *= factor
        self.plateau_stale = 0
        return True

    def follow(self, lr: float | None) -> bool:
        """Sets a learning rate by hand from the next epoch on; None is the phase's own. Returns
        whether it differs from the rate before."""
        if lr == self.lr_override:
            return False
        self.lr_override = lr
        shown = None if lr is None else float(f"{lr:.6g}")  # lr was a float32
        self.lr_by_hand.append(LrByHand(self.epoch + 1, shown))
        return True

    def lr_scale(self, lr: float) -> float:
        """The factor of the schedule's rate; `lr` is the phase's own."""
        set_by_hand = 1.0 if self.lr_override is None else self.lr_override / lr
        return self.plateau_scale * set_by_hand

    def close_phase(self, name: str, step: int) -> None:
        """Ends the phase after global step `step` and adds it to the history."""
        self.finished = True
        if self.best is None:  # no validation: the last state is the result of the phase
            self.best = Best(step, self.epoch, None, None)
        speed = self.train_images / self.train_seconds if self.train_seconds else 0.0
        entry = FinishedPhase(
            name=name,
            epochs=self.epoch,
            steps=step - self.phase_start,
            best_val_top1=(self.best.val or {}).get("top1"),
            best=self.best,
            images_per_second=speed,
            seconds=self.seconds,
            lr_by_hand=tuple(self.lr_by_hand),
        )
        self.history.append(entry)

    def next_phase(self) -> "Progress":
        """The progress at the start of the next phase."""
        return Progress(
            phase=self.phase + 1,
            phase_start=self.phase_start + self.history[-1].steps,
            epochs_of_phases=self.epochs_of_phases,
            bad_images=self.bad_images,
            history=self.history,
        )


def parse(stored: Mapping[str, Any]) -> Progress:
    """The inverse of `dataclasses.asdict`, for the JSON of a checkpoint; earlier versions wrote
    fewer keys. Raises errors like `results.parse`."""
    return results.parse(Progress, stored)
