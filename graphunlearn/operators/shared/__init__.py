"""Code shared by several unlearning methods: score targets, fine-tuning, warm starts, preparations and checks."""

from graphunlearn.operators.shared.tune import TuneSettings

__all__ = ["TuneSettings"]
