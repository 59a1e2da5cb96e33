"""RecBole on generated data: its own configuration, data preparation, training and evaluation."""

import sys

import pytest


def without_recbole():
    """Skip where RecBole is not there."""
    pytest.importorskip(
        "recbole",
        reason="RecBole is tested in an environment of its own (constraints-recbole.txt)",
        exc_type=ImportError,
    )


class RecBole:
    """A RecBole project in a folder."""

    def __init__(self, folder, frame, options):
        self.folder, self.options = folder, options
        (folder / "made").mkdir(exist_ok=True)
        frame.to_csv(folder / "made" / "made.inter", sep="\t", index=False)
        self.columns = [name.split(":")[0] for name in frame.columns]

    def prepare(self, name, seed=0, **options):
        """Return RecBole's configuration and its three data loaders."""
        from recbole.config import Config
        from recbole.data import create_dataset, data_preparation
        from recbole.utils import init_seed

        words, sys.argv = sys.argv, sys.argv[:1]  # RecBole reads the command line
        try:
            made = {
                "data_path": str(self.folder),
                "checkpoint_dir": str(self.folder / "saved"),
                "load_col": {"inter": self.columns},
                "use_gpu": False,
                "show_progress": False,
                "state": "ERROR",
                "seed": seed,
                "epochs": 3,
                "train_batch_size": 256,
            }
            config = Config(model=name, dataset="made", config_dict=made | self.options | options)
        finally:
            sys.argv = words
        init_seed(seed, True)  # the split is drawn
        return config, data_preparation(config, create_dataset(config))

    def train(self, config, loaders):
        """Return a model that RecBole trained."""
        from recbole.utils import get_model

        model = get_model(config["model"])(config, loaders[0]._dataset)
        self.trainer(config, model).fit(loaders[0], None, saved=False)
        return model

    def trainer(self, config, model):
        """Return RecBole's trainer of a model."""
        from recbole.utils import get_trainer

        return get_trainer(config["MODEL_TYPE"], config["model"])(config, model)

    def evaluate(self, config, model, train, test):
        """Return what RecBole's own evaluation says of a model."""
        trainer = self.trainer(config, model)
        trainer.eval_collector.data_collect(train)
        return trainer.evaluate(test, load_best_model=False)
