"""Ordinary functions that train a model on one of many workers, under torchrun or Ray Train alike."""

from speed_ray.training.plan import Report, TrainingPlan


def train(training: TrainingPlan, report: Report) -> None:
    """Train and publish a model by its method, on one worker of many."""
    # Imported here, because both load torch, which planning does not need.
    if training.method == "sft":
        from speed_ray.training import sft

        sft.train_sft(training, report)
    elif training.method == "contrastive":
        from speed_ray.training.contrastive import loop

        loop.train_contrastive(training, report)
    else:
        from speed_ray.training import dpo

        dpo.train_dpo(training, report)
