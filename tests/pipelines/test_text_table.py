from pipelines.text_table import format_table


def test_text_has_its_names_flush_left_and_its_numbers_right() -> None:
    table = format_table(("name", "AP"), [["a", "1.00"], ["longer", "12.00"]], markdown=False, left=1)
    assert table.splitlines() == ["name       AP", "a        1.00", "longer  12.00"]


def test_markdown_says_so_in_its_rule() -> None:
    table = format_table(("name", "AP"), [["a", "1.00"]], markdown=True, left=1)
    assert table.splitlines() == ["| name | AP |", "| --- | ---: |", "| a | 1.00 |"]
