"""Tasks -> examples.

ray job submit --working-dir . -- python jobs/synthesize.py --recipe miniature --run /shared/runs/first
"""

import sys

from speed_ray.cli import main

if __name__ == "__main__":
    main(["synthesize", *sys.argv[1:]])
