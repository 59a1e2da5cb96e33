"""Options that make every training here a matter of milliseconds."""

QUICK = ("--dim", "4", "--layers", "1", "--epochs", "3", "--batch-size", "4096")
