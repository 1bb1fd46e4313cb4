"""Judging by scores that is killed in the middle goes on, and makes the same bytes as if it had not been."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from speed_ray import recipes
from speed_ray.stages import judge_by_scores
from speed_ray.storage.run import VERDICTS, Run
from speed_ray.storage.verify import verify
from tests.unit.stages.test_judge_by_scores import mixed, proposed, recipe_of

pytestmark = pytest.mark.slow

KILLED = """
import os, signal, sys
from speed_ray import recipes
from speed_ray.stages import judge_by_scores
from speed_ray.storage.run import Run
judge = judge_by_scores.ShardJudge.__call__
def die_at_the_third(self, shard):
    if shard == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return judge(self, shard)
judge_by_scores.ShardJudge.__call__ = die_at_the_third
judge_by_scores.publish_verdicts(Run(sys.argv[2]), recipes.load_recipe(sys.argv[1]))
"""


def contents(run: Run) -> dict[str, str]:
    """The sha256 of the files that count, by shard and role."""
    commits = run.artifact(VERDICTS).commits()
    return {f"{each.shard} {role}": file.sha256 for each in commits for role, file in each.files.items()}


def test_a_kill_between_two_shards_changes_no_verdict(tmp_path: Path) -> None:
    lists, recipe = [mixed(number) for number in range(12)], recipe_of()
    killed, whole = (Run(str(tmp_path / name)) for name in ("killed", "whole"))
    for run in (killed, whole):
        proposed(run, lists)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipes.dump_yaml(recipe))

    done = subprocess.run([sys.executable, "-c", KILLED, str(path), killed.uri], capture_output=True, text=True)

    assert done.returncode == -signal.SIGKILL, done.stderr
    artifact = killed.artifact(VERDICTS)
    assert 0 < len(list(artifact.commits())) < 4 and artifact.manifest() is None
    for run in (killed, whole):
        judge_by_scores.publish_verdicts(run, recipe)
    assert contents(killed) == contents(whole) and len(contents(whole)) == 4
    assert all(verdict.holds for verdict in verify(killed))
