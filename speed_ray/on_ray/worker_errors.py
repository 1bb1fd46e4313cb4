"""Turn what a worker raised, or what Ray says of one that was lost, into the error that ends a job."""

from speed_ray.errors import Interrupted

ACTOR_LOGS = "worker-*.err; by Ray's default in /tmp/ray/session_latest/logs of their node"


def unforeseen_error(where: str, error: Exception) -> Interrupted:
    """Describe an exception that is none of ours; `where` says what the worker did ("examples, shard 3")."""
    return Interrupted(
        f"{where}: {type(error).__name__}: {error}\n"
        "This was not foreseen. Everything committed is kept: run the same command again. If it ends so each time, "
        f"please report it with the actors' logs ({ACTOR_LOGS})."
    )


def lost_worker_error(where: str, error: BaseException) -> Interrupted:
    """Describe a worker that Ray gave up. Its report ends with the cause, below many lines of its own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return Interrupted(
        f"{where}: a worker ended: {lines[-1] if lines else type(error).__name__}\n"
        "Everything committed is kept: run the same command again. If it ends so each time, its whole error is in the "
        f"actors' logs ({ACTOR_LOGS})."
    )
