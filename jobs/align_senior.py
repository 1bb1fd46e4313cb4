"""Junior -> senior.

ray job submit --working-dir . -- python jobs/align_senior.py --recipe miniature --run /shared/runs/first
"""

import sys

from speed_ray.cli import main

if __name__ == "__main__":
    main(["align-senior", *sys.argv[1:]])
