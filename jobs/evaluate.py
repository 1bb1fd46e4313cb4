"""Embedder -> scores.

ray job submit --working-dir . -- python jobs/evaluate.py --recipe miniature --run /shared/runs/first
"""

import sys

from speed_ray.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
