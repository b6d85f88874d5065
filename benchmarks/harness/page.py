"""The results in README.md, each between its own two marks."""

from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def update_page(name: str, text: str) -> None:
    """Put text in the place of what stands between `<!-- name -->` and `<!-- end of name -->`."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    written = README.read_text(encoding="utf-8")
    before, _, rest = written.partition(begin)
    _, _, after = rest.partition(end)
    README.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
