"""Build inference engines: vLLM, an OpenAI-compatible endpoint, a simulated engine, the scripted teacher."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from speed_ray.engines.base import Engine
from speed_ray.recipes.engine_settings import EngineConfig, OpenAIEngine, ScriptedEngine, SimulatedEngine, VllmEngine

if TYPE_CHECKING:
    from speed_ray.engines.budget import Ledger  # brings asyncio, which `status` does without


def build_engine(configs: Sequence[EngineConfig], ledger: "Ledger | None", role: str) -> Engine:
    """Build the engine for a role ("teacher"); an endpoint's calls are covered by its ledger.

    Several configs are one engine that answers with several adapters; they differ in nothing else. Engines are
    imported here, one by one, because each brings a library that the others do without.
    """
    match config := configs[0]:
        case VllmEngine():
            from speed_ray.engines.vllm import Vllm

            adapters = [each.adapter for each in configs if isinstance(each, VllmEngine) and each.adapter]
            return Vllm(config, adapters, role)
        case OpenAIEngine():
            from speed_ray.engines.openai import OpenAI

            assert ledger is not None, "an endpoint's calls cost money"
            return OpenAI(config, ledger, role)
        case SimulatedEngine():
            from speed_ray.engines.simulated import Simulated

            return Simulated(config)
        case ScriptedEngine():
            from speed_ray.engines.scripted import ScriptedTeacher

            return ScriptedTeacher(config)
