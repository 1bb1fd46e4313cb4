"""Junior -> revisor.

ray job submit --working-dir . -- python jobs/align_revisor.py --recipe miniature --run /shared/runs/first
"""

import sys

from speed_ray.cli import main

if __name__ == "__main__":
    main(["align-revisor", *sys.argv[1:]])
