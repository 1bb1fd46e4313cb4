"""A page comes out as its own text, with its structure, whatever its author left open."""

import time

import pytest

from speed_ray.documents.faults import Fault
from speed_ray.documents.html import read_html

PAGE = b"""<!doctype html><html><head><title> A  page </title><style>p {}</style></head><body>
<header><h1>Site</h1></header><nav>Menu <a href=/>Home</a></nav>
<main><h1>Title of <code>it</code><a class=headerlink href=#t>#</a></h1>
<div>Some <b>bold</b>
 words<p>A paragraph.</p>and after it</div>
<ul><li>one<li>two</ul>
<pre>def f():
    return 1

# done</pre>
<table><tr><th>A<th>B<tr><td>1<td>2</table>a line<br>and another
<script>evil()</script></main><footer>Copyright</footer></body></html>"""


def test_structure_is_kept_and_what_surrounds_the_text_is_not() -> None:
    title, text = read_html(PAGE)
    assert " ".join(title.split()) == "A page"
    assert text == (
        "# Title of it\n\nSome bold words\n\nA paragraph.\n\nand after it\n\n- one\n- two\n\n"
        "```\ndef f():\n    return 1\n \n# done\n```\n\nA | B\n1 | 2\n\na line\nand another"
    )


def test_a_page_without_a_main_part_is_its_body() -> None:
    assert read_html(b"<p>One <i>unclosed<p>Two") == ("", "One unclosed\n\nTwo")


def test_a_declared_encoding_is_believed_where_it_is_not_utf8() -> None:
    assert read_html("<meta charset='iso-8859-1'><p>caf\xe9".encode("latin-1"))[1] == "caf\xe9"
    with pytest.raises(Fault, match="invalid continuation byte"):
        read_html("<p>caf\xe9 au lait".encode("latin-1"))


@pytest.mark.parametrize("page", [b"", b"<", b"<pre><pre>a<h1>b</pre></pre>", b"<h1><pre>a</pre></h1>", b"</p></div>"])
def test_a_broken_page_is_read_as_browsers_do(page: bytes) -> None:
    assert "\x01" not in read_html(page)[1]


def test_a_page_that_would_take_minutes_to_parse_is_refused_at_once() -> None:
    started = time.perf_counter()
    with pytest.raises(Fault, match="2,000 tags are open within each other"):
        read_html(b"<div>" * 200_000)
    assert time.perf_counter() - started < 5
    assert read_html(b"<div><p>a</p></div>" * 20_000)[1].startswith("a\n\na")
