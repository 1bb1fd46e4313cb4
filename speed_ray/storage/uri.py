"""Check the URI of a folder or file in a store: two spellings must not be one folder, nor one spelling two."""

from urllib.parse import urlsplit

from speed_ray.errors import UserError


def check_uri(uri: str) -> None:
    """Raise UserError for a URI that a store would read as another one: what follows a `#` is left out, for example.

    Seen of obstore 0.12.1: `s3://bucket/run#1` and `run?v=2` are `run`, `a%20b` is `a b`, `s3://bucket/../x` is `x`,
    and a key before the bucket's name or a port behind it counts for nothing.
    """
    where = urlsplit(uri)
    if where.scheme in ("s3", "gs") and set("@:") & set(where.netloc):
        raise UserError(
            f"{where.scheme}://…{where.path}: give the bucket's name alone, without a key or a port. Credentials and "
            "an endpoint of your own are told by the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL)."
        )
    if where.scheme == "file" and where.netloc not in ("", "localhost"):
        raise UserError(f"{uri} names a machine, {where.netloc!r}. Write file:///folder, with three slashes.")
    if reason := _ambiguity(uri, where.path):
        raise UserError(
            f"{uri!r} has {reason}, and would be taken for the name of another folder.\n"
            "Use letters, digits and - _ . between slashes."
        )


def _ambiguity(uri: str, path: str) -> str:
    odd = [sign for sign in "#?%" if sign in uri] + [part for part in path.split("/") if part in (".", "..")]
    if odd:
        return f"{odd[0]!r} in it"
    if uri != uri.strip():
        return "a space at one end"
    return "" if uri.isprintable() else "a line break or another character that cannot be printed in it"
