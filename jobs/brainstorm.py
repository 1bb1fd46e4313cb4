"""Topics -> tasks.

ray job submit --working-dir . -- python jobs/brainstorm.py --recipe miniature --run /shared/runs/first
"""

import sys

from speed_ray.cli import main

if __name__ == "__main__":
    main(["brainstorm", *sys.argv[1:]])
