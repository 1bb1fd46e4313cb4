"""Find out, before a run begins on a store, whether the store keeps what the exactly-once protocol rests on."""

import uuid

from speed_ray.errors import UserError
from speed_ray.storage.store import CreateNotSupported, Store

PROBE = "_PROBE"  # created once in a run's life


def check_create_is_exclusive(store: Store, name: str = PROBE) -> None:
    """Raise UserError for a store on which a second `create` of a name succeeds: there every commit would count.

    Some servers that speak S3 drop `If-None-Match`, some answer it by 501, or by 304 whatever is there. The probe has
    one name and stays: credentials may lack the right to delete, and drivers that start at once share it.
    """
    try:
        overwritten = all(store.create(name, uuid.uuid4().bytes) for _ in range(2))
    except CreateNotSupported as error:
        raise _unfit(store, str(error)) from error
    if overwritten:
        raise _unfit(store, "a second creation of one object overwrote the first")


def _unfit(store: Store, said: str) -> UserError:
    return UserError(
        f"{store.uri}: this store does not create an object only if it is absent, and by that a shard counts once:\n"
        f"{said}.\nUse another store for --run, or a version of this one that honours `If-None-Match: *`."
    )
