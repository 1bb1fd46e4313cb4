"""Print what `verify` found in a run and its later rounds, and withdraw what is damaged."""

from collections.abc import Iterator

from speed_ray.storage.repair import made_of, repair_run
from speed_ray.storage.run import LATER_ROUNDS, Run
from speed_ray.storage.verify import VerifyResult, verify_rounds


def print_proof(run: Run, repair: bool) -> bool:
    """Verify a run with its later rounds, print each result, repair if asked; return whether the proof holds."""
    broken = []
    for verified, verdicts in verify_rounds(run):
        print(*_lines(verified, verdicts), sep="\n")
        if not all(verdict.holds for verdict in verdicts):
            broken.append((verified, verdicts))
    if repair:
        for verified, verdicts in broken:
            print(*_repair(verified, verdicts), sep="\n")
    elif any(each.damaged or each.published for _, verdicts in broken for each in verdicts if not each.holds):
        print(f"Something was damaged after it was made. With nobody driving: speed-ray verify {run.uri} --repair")
    return not broken


def _lines(run: Run, verdicts: list[VerifyResult]) -> Iterator[str]:
    _, later, number = run.uri.rpartition(LATER_ROUNDS)
    prefix = f"{LATER_ROUNDS.strip('/')}/{number}/" if later else ""
    for verdict in verdicts:
        yield f"{prefix}{verdict.artifact}: {verdict}"
        for problem in verdict.problems:
            yield f"  {problem}"


def _repair(run: Run, verdicts: list[VerifyResult]) -> Iterator[str]:
    withdrawn = repair_run(run, verdicts)
    yield f"{withdrawn} damaged shards withdrawn. Run the same jobs again: they make only what is missing."
    if later := made_of(run, [verdict.artifact for verdict in verdicts if verdict.damaged]):
        yield f"Where their rows come out otherwise, what was made of them is made anew: {', '.join(later)}."
