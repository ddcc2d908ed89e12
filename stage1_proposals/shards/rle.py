"""Reading COCO's compressed run lengths, of all masks of an image at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# A compressed number is written in characters of 6 bits, counted from "0": 5 bits of the number, lowest first, and
# whether more follow. The last one's highest bit is the sign.
ZERO, BITS, MORE, SIGN = ord("0"), 5, 0x20, 0x10
WORD_BITS = 6
WORD = 1 << WORD_BITS

Ints = NDArray[np.int64]


def read_changes(rle: Sequence[bytes], size: tuple[int, int]) -> tuple[Ints, Ints]:
    """Where masks begin and end.

    Args:
        rle: compressed counts of L masks.
        size: their (height, width).

    Returns:
        int64 (C,) twice: the mask each change belongs to, and its pixel in column-major order (COCO's), both ascending.
        Changes alternate between entering and leaving a mask, and every mask begins outside and is left at its end.

    Raises:
        ValueError: the counts of a mask do not add up to its size.
    """
    counts, mask, number = _read_counts(rle)
    pixels = size[0] * size[1]
    ends = counts.cumsum() - mask * pixels
    final = np.diff(mask, append=len(rle)) != 0
    if (counts < 0).any() or (ends[final] != pixels).any() or np.count_nonzero(final) != len(rle):
        raise ValueError("run lengths do not add up to the size of the mask")
    # The last run of a mask is left at its end, unless it lies outside of it.
    changes = ~final | (number & 1 == 1)
    return mask[changes], ends[changes]


def decode(rle: Sequence[bytes], size: tuple[int, int]) -> NDArray[np.uint8]:
    """L masks from their compressed counts: uint8 (L, height, width), 0 or 1; in memory column by column.

    As `pycocotools.mask.decode`, at a fraction of its time: pixels are bits until the last step.

    Raises:
        ValueError: the counts of a mask do not add up to its size.
    """
    (height, width), pixels = size, size[0] * size[1] * len(rle)
    mask, pixel = read_changes(rle, size)
    place = mask * (height * width) + pixel
    words, bits = place >> WORD_BITS, np.uint64(1) << (place & (WORD - 1)).astype(np.uint64)
    first = np.flatnonzero(np.diff(words, prepend=-1))  # change in its word
    changed = words[first]
    states = np.bitwise_xor.reduceat(bits, first) if len(first) else bits
    # A bit is inside when the number of changes up to it is odd: those before its word, and those in it.
    for shift in (1, 2, 4, 8, 16, 32):
        states ^= states << np.uint64(shift)
    odd = np.append(first, len(place)).astype(np.uint64) % 2 * np.uint64(2**WORD - 1)
    states ^= odd[:-1]
    total = -(-pixels // WORD) + 1  # one for the end of the last mask
    packed = np.repeat(odd, np.diff(np.concatenate([[0], changed, [total]])))
    packed[changed] = states
    found = np.unpackbits(packed.astype("<u8", copy=False).view(np.uint8), count=pixels, bitorder="little")
    return found.reshape(len(rle), width, height).transpose(0, 2, 1)


def repeated(times: Ints) -> tuple[Ints, Ints]:
    """Each index as many times as said, and the number of the time, from 0."""
    index = np.repeat(np.arange(len(times)), times)
    return index, np.arange(len(index)) - np.repeat(np.cumsum(times) - times, times)


def _read_counts(rle: Sequence[bytes]) -> tuple[Ints, Ints, Ints]:
    """Lengths of runs, in turn outside and inside, int64 (R,); and for each its mask, and its number in that mask."""
    codes = np.frombuffer(b"".join(rle), np.uint8) - np.uint8(ZERO)
    last = np.flatnonzero(codes < MORE)
    characters = np.diff(last, prepend=-1)
    first = last - characters + 1
    counts = (codes[first] & (MORE - 1)).astype(np.int64)
    for place in range(1, characters.max(initial=1)):
        longer = np.flatnonzero(characters > place)
        counts[longer] |= (codes[first[longer] + place] & (MORE - 1)).astype(np.int64) << (BITS * place)
    counts -= ((codes[last] & SIGN) != 0) * (np.int64(1) << (BITS * characters))
    ends = np.searchsorted(last, np.cumsum([len(each) for each in rle]))
    mask, number = repeated(np.diff(ends, prepend=0))
    # From the fourth on, a number is the difference from the one before the last: sums along every other one.
    odd = number & 1 == 1
    for chain in (np.flatnonzero(odd), np.flatnonzero(~odd & (number > 0))):
        sums = np.append(0, counts[chain].cumsum())
        before = sums[np.searchsorted(mask[chain], np.arange(len(rle)))]
        counts[chain] = sums[1:] - before[mask[chain]]
    return counts, mask, number
