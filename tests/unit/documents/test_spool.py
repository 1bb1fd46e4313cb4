"""Rows come back from files in their order, and no batch is large because its texts are."""

from pathlib import Path

from speed_ray.documents import spool
from speed_ray.documents.spool import Spool, in_batches, in_order


def test_rows_come_back_in_order_and_more_than_once(tmp_path: Path) -> None:
    kept: Spool[int] = Spool(tmp_path / "kept")
    kept.add([1, 2])
    kept.add([3])
    assert [list(kept), list(kept)] == [[1, 2, 3], [1, 2, 3]]
    kept.add([4])
    assert (list(kept), kept.items) == ([1, 2, 3, 4], 4)
    kept.close()


def test_a_batch_ends_at_so_many_characters() -> None:
    sizes = [1, spool.CHARACTERS, 2, 3]
    assert list(in_batches((size, size) for size in sizes)) == [[1], [spool.CHARACTERS], [2, 3]]
    assert [len(batch) for batch in in_batches((0, 0) for _ in range(2_000))] == [1_024, 976]


def test_results_wait_for_their_turn_and_leave_nothing(tmp_path: Path) -> None:
    results = iter([(2, ["c"]), (0, ["a"]), (1, []), (3, ["d"])])
    assert list(in_order(results, tmp_path)) == [["a"], [], ["c"], ["d"]]
    assert list(tmp_path.iterdir()) == []
