"""Give MkDocs what is made from the code: the reference pages, the pictures, and the style that these need."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from website import data_way, error_messages, python_api, recipe_keys

HERE = Path(__file__).parent
PAGES = {
    "reference/recipe_keys.md": recipe_keys.write_page,
    "reference/error_messages.md": error_messages.write_page,
    "reference/python_api.md": python_api.write_page,
}
PICTURE = re.compile(r"<!-- the data's way from (\w+) -->")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages made from the code, and the style."""
    for path, write_page in PAGES.items():
        files.append(File.generated(config, path, content=write_page()))
    files.append(File.generated(config, "site.css", abs_src_path=str(HERE / "site.css")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Draw each picture in the place of the comment that asks for it."""
    return PICTURE.sub(lambda asked: data_way.draw_way(asked[1]), markdown)
