"""Ray's own autoscaler, given the RayCluster of cluster/kuberay as KubeRay hands it over, starts the nodes we mean.

It is asked by its internal functions, on paper: no Ray, no Kubernetes. They may move with another version of Ray; what
is asserted may not.
"""

from collections.abc import Callable, Sequence

import pytest
from ray.autoscaler._private.kuberay import autoscaling_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.common_pb2 import LabelSelectorOperator

from tests.helpers.kubectl import render
from tests.helpers.paths import ROOT

Ask = Callable[..., dict[str, int]]
KUBERAY = ROOT / "cluster" / "kuberay"
ENGINE = {"CPU": 1.0, "GPU": 1.0}


@pytest.fixture
def ask() -> Ask:
    """How many nodes of each group are started for so many actors of a kind, with none there yet."""
    (cluster,) = [each for each in render(KUBERAY / "overlays" / "volume") if each["kind"] == "RayCluster"]
    config = AutoscalingConfig(
        autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster), skip_content_hash=True
    )

    def asked(
        count: int, need: dict[str, float], group: str | None = None, lacking: Sequence[str] = ()
    ) -> dict[str, int]:
        selector = [("speed-ray/group", LabelSelectorOperator.LABEL_OPERATOR_IN, [group])]
        actor = ResourceRequestUtil.make(need, label_selectors=[selector] if group else None)
        request = SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=config.get_node_type_configs(),
            max_num_nodes=config.get_max_num_worker_nodes(),
            resource_requests=ResourceRequestUtil.group_by_count([actor] * count),
            recoverable_resource_availabilities=dict.fromkeys(lacking, 0.0),
        )
        reply = ResourceDemandScheduler(event_logger=None).schedule(request)
        return {launched.instance_type: launched.count for launched in reply.to_launch}

    return asked


def test_an_engine_begins_on_a_spot_machine(ask: Ask) -> None:
    assert ask(3, ENGINE, "synthesis") == {"synthesis-spot": 3}
    assert ask(3, ENGINE) == {"synthesis-spot": 3}


def test_an_engine_takes_another_machine_where_there_are_no_spot_machines(ask: Ask) -> None:
    assert ask(3, ENGINE, "synthesis", lacking=["synthesis-spot"]) == {"synthesis-on-demand": 3}


def test_more_engines_than_spot_machines_take_both(ask: Ask) -> None:
    assert ask(100, ENGINE, "synthesis") == {"synthesis-spot": 16, "synthesis-on-demand": 4}


def test_training_has_nodes_of_its_own(ask: Ask) -> None:
    assert ask(8, ENGINE, "training") == {"training": 8}
    assert ask(100, ENGINE, "training") == {"training": 8}


def test_what_needs_no_gpu_starts_none(ask: Ask) -> None:
    assert ask(4, {"CPU": 1.0}) == {"cpu": 1}
    assert ask(4, {"CPU": 1.0}, "synthesis") == {"cpu": 1}


def test_what_fits_no_node_starts_none(ask: Ask) -> None:
    assert ask(1, {"CPU": 1.0, "GPU": 2.0}, "synthesis") == {}
