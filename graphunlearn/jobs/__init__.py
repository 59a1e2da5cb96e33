"""Deletion jobs: requests with a due date, worked off in batches and entered in a ledger."""

from graphunlearn.jobs.job import Batch, Job
from graphunlearn.jobs.jobs import Jobs

__all__ = ["Batch", "Job", "Jobs"]
