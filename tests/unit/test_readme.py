"""CI runs what README tells a reader to type; what it cannot run, README says it did not."""

import re

from tests.helpers.paths import ROOT
from tests.helpers.tiny_cluster import Head, Submitted

README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.findall(r"^```(\w*)\n(.+?)^```$", README, re.M | re.S)
BLOCKS = [block.replace("\\\n  ", "") for language, block in FENCED if not language]
TYPED = re.compile(r"make |\.venv/|RAY_|kubectl |minikube ")  # the other block is what the demo prints
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if TYPED.match(line)]
DEMO = (ROOT / "Makefile").read_text(encoding="utf-8").split("\ndemo: venv\n")[1].split("\n\n")[0]
ON_A_CLUSTER = [command for command in COMMANDS if " head" in command or "job submit" in command]


def test_every_make_target_is_one_that_ci_runs() -> None:
    targets = re.search(r"^for target in (.+); do$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.M)
    typed = {command.split()[1] for command in COMMANDS if command.startswith("make ")}
    assert targets and typed - {"image"} == {"demo", "demo-speed", "test"} <= set(targets[1].split())


def test_every_command_of_a_run_is_part_of_the_demo() -> None:
    typed = [command for command in COMMANDS if command.startswith(".venv/") and command not in ON_A_CLUSTER]
    run = [line.strip().replace("$(BIN)", ".venv/bin") for line in DEMO.splitlines()[1:5]]
    assert len(typed) == 4 and typed == run


def test_a_cluster_is_begun_and_used_as_in_the_fault_tests(tmp_path) -> None:
    head = Head(tmp_path, cpus=1)
    begin, submit = ON_A_CLUSTER
    assert begin.split() == [".venv/bin/speed-ray", head.arguments("head")[0]]
    tested = Submitted.script(head, "run", _Run()).arguments("run")
    assert [word for word in submit.split()[2:] if word in tested] == [
        *("job", "submit", "--working-dir", "--", "python", "jobs/run.py", "--recipe", "miniature", "--run")
    ]


def test_the_commands_of_kubernetes_are_said_to_be_untried() -> None:
    (block,) = (block for block in BLOCKS if "kubectl" in block)
    assert len(block.splitlines()) == 6 and "none of these six commands was run" in README.replace("\n", " ")


class _Run:
    @staticmethod
    def arguments(command: str) -> list[str]:
        return [command, "--recipe", "miniature", "--run", "runs/first"]
