"""Run the `speed-ray` command as `python -m speed_ray`, from a working directory where it is not installed."""

from speed_ray.cli import main

if __name__ == "__main__":
    main()
