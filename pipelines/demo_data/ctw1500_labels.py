"""Writes labels in the files and formats of the real CTW1500: XML for training, text for testing."""

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from pipelines.demo_data.text_images import Line


def xml_label(image_name: str, lines: Sequence[Line]) -> str:
    """The XML label of a training image: per line its box, transcription, polygon and the middle of each letter."""
    rows = ["<Annotations>", f" <image file={quoteattr(image_name)}>"]
    for line in lines:
        left, top = line.polygon.min(axis=0).tolist()
        width, height = (line.polygon.max(axis=0) - (left, top)).tolist()
        rows += [
            f'  <box height="{height}" left="{left}" top="{top}" width="{width}">',
            f"   <label>{escape(line.text)}</label>",
            f"   <segs>{','.join(map(str, line.polygon.ravel().tolist()))}</segs>",
            *(f'   <pts x="{x}" y="{y}" />' for x, y in line.glyphs.tolist()),
            "  </box>",
        ]
    return "\n".join([*rows, " </image>", "</Annotations>", ""])


def text_label(lines: Sequence[Line]) -> str:
    """The text label of a test image: per line 28 numbers, then `####` and the transcription."""
    return "".join(f"{','.join(map(str, line.polygon.ravel().tolist()))},####{line.text}\n" for line in lines)
