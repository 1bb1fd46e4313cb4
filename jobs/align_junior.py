"""Tasks -> junior.

ray job submit --working-dir . -- python jobs/align_junior.py --recipe miniature --run /shared/runs/first
"""

import sys

from speed_ray.cli import main

if __name__ == "__main__":
    main(["align-junior", *sys.argv[1:]])
