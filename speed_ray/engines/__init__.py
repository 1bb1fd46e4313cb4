"""Who answers: a vLLM engine, an OpenAI-compatible endpoint, a simulated engine, the miniature's scripted teacher."""

from speed_ray.engines.budget import Spent
from speed_ray.engines.engine import Engine
from speed_ray.recipe import EngineConfig, OpenAIEngine, ScriptedEngine, SimulatedEngine, VllmEngine


def build(config: EngineConfig, spent: Spent, role: str) -> Engine:
    """Make the engine that a recipe names for a role ("teacher"); `spent` is what earlier drives asked of it already.

    Engines are imported here, one by one, because each brings a library that the others do without.
    """
    match config:
        case VllmEngine():
            from speed_ray.engines.vllm import Vllm

            return Vllm(config)
        case OpenAIEngine():
            from speed_ray.engines.openai import OpenAI

            return OpenAI(config, spent, role)
        case SimulatedEngine():
            from speed_ray.engines.simulated import Simulated

            return Simulated(config)
        case ScriptedEngine():
            from speed_ray.engines.scripted import ScriptedTeacher

            return ScriptedTeacher(config)
