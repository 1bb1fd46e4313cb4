"""Examples -> curated examples.

ray job submit --working-dir . -- python jobs/curate.py --recipe miniature --run /shared/runs/first
"""

import sys

from speed_ray.cli import main

if __name__ == "__main__":
    main(["curate", *sys.argv[1:]])
