"""Files in many layouts, whole and damaged: what is read is right or told, and nothing else is raised."""

import fuzz
import pytest


@pytest.mark.parametrize("seed", [0, 1])
def test_no_row_is_lost_in_silence(seed):
    verdicts, wrong = fuzz.run(150, seed)
    assert [(number, case.name, verdict, said) for number, case, verdict, said in wrong] == []
    assert verdicts["right"] > 20  # most whole files are read, not refused
    assert verdicts["refused"] > 20
    assert sum(verdicts.values()) == 150
