"""Train one model by the method of its plan, as one of its workers.

A driver imports this module and needs no torch: the trainers are imported where they run.
"""

from speed_ray.training.plan import Report, TrainingPlan


def train_model(training: TrainingPlan, report: Report) -> None:
    """Train and publish a model on one worker of many, calling `report` with the metrics of a step now and then."""
    if training.method == "contrastive":
        from speed_ray.training.contrastive.loop import train_contrastive

        train_contrastive(training, report)
    else:
        from speed_ray.training.trl_trainer import train_with_trl

        train_with_trl(training, report)
