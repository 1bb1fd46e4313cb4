"""Examples -> embedder.

ray job submit --working-dir . -- python jobs/train_embedder.py --recipe miniature --run /shared/runs/first
"""

import sys

from speed_ray.cli import main

if __name__ == "__main__":
    main(["train-embedder", *sys.argv[1:]])
