"""Turn a web page into Markdown: headings, paragraphs, lists, code and rows of tables; navigation is left out.

selectolax (lexbor, the parser of HTML5 that takes any page) because a page is parsed and cleaned by it in a
millisecond, and it needs nothing else. What counts as the page's own text is told by tags alone: extractors that guess
it by the density of links lose short pages, of which documentation has many.
"""

import re
from itertools import accumulate

from selectolax.lexbor import LexborHTMLParser, LexborNode

from speed_ray.documents.faults import Fault, decode

FORMATS = (".html", ".htm")
DROPPED = (  # what is no text, and what is the same on every page of a site
    "script, style, template, noscript, svg, iframe, object, form, button, dialog, nav, footer, aside, "
    "[hidden], [aria-hidden=true], [role=navigation], [role=contentinfo], [role=search], [role=banner], a.headerlink"
)
MAIN = ("main", "[role=main]", "article")
BLOCKS = (
    "p, div, section, article, main, header, ul, ol, dl, table, blockquote, figure, figcaption, hr, details, summary"
)
LINES = "li, dt, dd, tr"
# Signs that no page may hold stand for what is to be kept of its layout until all other spaces are one.
PARAGRAPH, LINE, SPACE = "\x01", "\x02", "\x03"
_SIGNS = re.compile("[\x00-\x08\x0e-\x1f]")
# Parsing takes time by tags times depth: 200,000 open <div>, 1 MB, took two minutes; a browser stops at 512.
DEEPEST, ALWAYS_SHALLOW = 2_000, 100_000  # tags within each other; characters of a page that need not be looked at
_TAG = re.compile(
    r"<(/?)(?!(?:p|li|d[td]|t[rdh]|option|br|img|hr|input|meta|link|source|col|wbr|area|base)\b)[a-z]", re.IGNORECASE
)
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset=[\"']?([\w-]+)", re.IGNORECASE)


def read_html(data: bytes) -> tuple[str, str]:
    """Return the title of a page, and its text as Markdown. Raises Fault for bytes that are no text."""
    text = _SIGNS.sub(" ", _decoded(data))
    if len(text) > ALWAYS_SHALLOW and _depth(text) > DEEPEST:
        raise Fault("unreadable", f"more than {DEEPEST:,} tags are open within each other")
    page = LexborHTMLParser(text)
    title = page.css_first("title")
    body = page.body
    if body is None:
        return "", ""
    for node in body.css(DROPPED):
        node.decompose()
    mains = next((found for selector in MAIN if (found := body.css(selector))), [body])
    own = [node for node in mains if not _is_inside(node, mains)]
    return title.text() if title else "", "\n\n".join(_markdown(node) for node in own)


def _decoded(data: bytes) -> str:
    """Decode by UTF-8, else by what the page itself declares."""
    try:
        return decode(data)
    except Fault as fault:
        declared = _CHARSET.search(data[:4096])
        if fault.reason != "not_utf8" or declared is None:
            raise
        try:
            return data.decode(declared[1].decode())
        except (LookupError, UnicodeDecodeError):
            raise fault from None


def _depth(text: str) -> int:
    """Return how many tags are open at once, at most, of those that no other tag closes."""
    return max(accumulate(-1 if tag[1] else 1 for tag in _TAG.finditer(text)), default=0)


def _is_inside(node: LexborNode, others: list[LexborNode]) -> bool:
    parent = node.parent
    while parent is not None:
        if any(parent == other for other in others):
            return True
        parent = parent.parent
    return False


def _markdown(node: LexborNode) -> str:
    for code in node.css("pre"):
        kept = LINE.join(line or SPACE for line in code.text().strip("\n").split("\n")).replace(" ", SPACE)
        code.replace_with(f"{PARAGRAPH}```{LINE}{kept}{LINE}```{PARAGRAPH}")
    for level in range(1, 7):
        for heading in node.css(f"h{level}"):
            heading.replace_with(f"{PARAGRAPH}{'#' * level} {' '.join(heading.text().split())}{PARAGRAPH}")
    for cell in node.css("td + td, td + th, th + td, th + th"):
        cell.insert_before(" | ")
    _surround(node.css(BLOCKS), PARAGRAPH, PARAGRAPH)
    _surround(node.css("li"), f"{LINE}- ", LINE)
    _surround(node.css("dt, dd, tr"), LINE, LINE)
    for line_break in node.css("br"):
        line_break.replace_with(LINE)
    return _laid_out(node.text())


def _surround(nodes: list[LexborNode], before: str, after: str) -> None:
    for node in nodes:
        node.insert_before(before)
        node.insert_after(after)


def _laid_out(text: str) -> str:
    """Make all spaces one, then put the layout in again."""
    paragraphs = " ".join(text.split()).split(PARAGRAPH)
    laid = ("\n".join(line.strip() for line in each.split(LINE) if line.strip()) for each in paragraphs)
    return "\n\n".join(each.replace(SPACE, " ") for each in laid if each)
