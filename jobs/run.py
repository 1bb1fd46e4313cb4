"""Run every job that a recipe needs, in order, as a Ray job. For one of them alone: `python -m speed_ray JOB`.

ray job submit --working-dir . -- python jobs/run.py --recipe miniature --run /shared/runs/first
"""

import sys

from speed_ray.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
