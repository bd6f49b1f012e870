"""Seeded mutations: what storage and transport do to any file, and what each kind's `lies` say."""

import gzip
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle, islice

from tests.fuzz import archives, dicoms, jpeg, keras, manifests, png, tensors, tiff, torch
from tests.fuzz.files import Case, Edit, Original, apply, free

KINDS: dict[str, Callable[[], Iterable[Original]]] = {
  'png': png.originals,
  'jpg': jpeg.originals,
  'tiff': tiff.originals,
  'DICOM': dicoms.originals,
  'npz MedMNIST': archives.originals,
  'npz weights': archives.checkpoints,
  'safetensors': tensors.originals,
  'pth': torch.originals,
  'h5': keras.originals,
  'csv': manifests.originals,
}
PAGE = b'<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Log in</body></html>\n'
POINTER = (
  b'version https://git-lfs.github.com/spec/v1\noid sha256:'
  + b'0123456789abcdef' * 4
  + b'\nsize 12345\n'
)
Damage = Callable[[Original, random.Random], list[Edit]]


def cases(kind: str, count: int, seed: int) -> list[Case]:
  """Return `count` mutated files of a kind, the same for the same seed.

  Two thirds of them lie: each kind's lies take turns. The others are damaged as in DAMAGES.
  """
  dice = random.Random(f'{seed} {kind}')
  originals = list(KINDS[kind]())
  lying = list(islice(_lies(originals, dice), count * 2 // 3))
  damaged = islice(_damaged(originals, dice), count - len(lying))
  return [*lying, *damaged]


def _lies(originals: list[Original], dice: random.Random) -> Iterator[Case]:
  """Give a lie of each name, then a second of each on another original, and so on."""
  by_name: dict[str, list[Case]] = {}
  for original in dice.sample(originals, len(originals)):
    for lie in original.lies(dice):
      if lie.data != original.data:
        case = Case(original, lie.name, lie.data, lie.free)
        by_name.setdefault(lie.name, []).append(case)
  order = dice.sample(sorted(by_name), len(by_name))
  for same in by_name.values():
    dice.shuffle(same)
  while order:
    yield from (by_name[name].pop() for name in order)
    order = [name for name in order if by_name[name]]


def _damaged(originals: list[Original], dice: random.Random) -> Iterator[Case]:
  """Give each kind of damage in turn, each time to another original."""
  order = dice.sample(originals, len(originals))
  turns = zip(cycle(DAMAGES.items()), cycle([*order, *order[::-1]]), strict=False)
  for (name, damage), original in turns:
    edits = damage(original, dice)
    data = apply(original.data, edits)
    if data != original.data:
      yield Case(original, name, data, free(original, edits))


def _flip(original: Original, place: int, dice: random.Random) -> Edit:
  return Edit(place, place + 1, bytes([original.data[place] ^ 1 << dice.randrange(8)]))


def one_bit(original: Original, dice: random.Random) -> list[Edit]:
  """Return an edit of one bit, anywhere."""
  return [_flip(original, dice.randrange(len(original.data)), dice)]


def one_bit_of_structure(original: Original, dice: random.Random) -> list[Edit]:
  """Return an edit of one bit outside the pixels and other values that may be any."""
  covered = [True] * len(original.data)
  for region in original.regions:
    covered[region.start : region.stop] = [False] * (region.stop - region.start)
  places = [place for place, is_covered in enumerate(covered) if is_covered] or [0]
  return [_flip(original, dice.choice(places), dice)]


def a_few_bits(original: Original, dice: random.Random) -> list[Edit]:
  """Return edits of two to eight bits."""
  places = dice.sample(range(len(original.data)), dice.randint(2, 8))
  return [_flip(original, place, dice) for place in places]


def a_byte(original: Original, dice: random.Random) -> list[Edit]:
  """Return an edit of one byte to 0 or 255."""
  place = dice.randrange(len(original.data))
  return [Edit(place, place + 1, dice.choice([b'\0', b'\xff']))]


def cut(original: Original, dice: random.Random) -> list[Edit]:
  """Return an edit that ends the file anywhere."""
  size = len(original.data)
  return [Edit(dice.randrange(1, size), size, b'')]


def cut_at_the_end(original: Original, dice: random.Random) -> list[Edit]:
  """Return an edit that takes the last bytes."""
  size = len(original.data)
  return [Edit(size - dice.randint(1, 24), size, b'')]


def cut_in_the_head(original: Original, dice: random.Random) -> list[Edit]:
  """Return an edit that leaves the first bytes only."""
  return [Edit(dice.randint(1, 24), len(original.data), b'')]


def byte_lost(original: Original, dice: random.Random) -> list[Edit]:
  """Return an edit that takes one byte out."""
  place = dice.randrange(len(original.data) - 1)
  return [Edit(place, place + 1, b'')]


def byte_more(original: Original, dice: random.Random) -> list[Edit]:
  """Return an edit that puts one byte in."""
  place = dice.randrange(len(original.data))
  return [Edit(place, place, bytes([dice.randrange(256)]))]


def block_lost(original: Original, dice: random.Random) -> list[Edit]:
  """Return an edit that takes some bytes out."""
  size = len(original.data)
  start = dice.randrange(size - 2)
  return [Edit(start, min(start + dice.randint(2, 64), size - 1), b'')]


def block_of_zeros(original: Original, dice: random.Random) -> list[Edit]:
  """Return an edit that empties a run of bytes, each for itself."""
  size = len(original.data)
  start = dice.randrange(size)
  stop = min(start + dice.randint(2, 64), size)
  return [Edit(place, place + 1, b'\0') for place in range(start, stop)]


def blocks_swapped(original: Original, dice: random.Random) -> list[Edit]:
  """Return edits that swap two runs of 16 bytes, as a copy out of order does."""
  data = original.data
  first, second = sorted(dice.sample(range(len(data) // 16), 2))
  edits = []
  for source, target in ((first, second), (second, first)):
    for offset in range(16):
      place = 16 * target + offset
      new = data[16 * source + offset : 16 * source + offset + 1]
      edits.append(Edit(place, place + 1, new))
  return edits


def line_ends(original: Original, dice: random.Random) -> list[Edit]:
  """Return edits that turn LF into CR LF, as FTP did to files that it took for text."""
  places = [place for place, byte in enumerate(original.data) if byte == 10]
  return [Edit(place, place, b'\r') for place in places]


def saved_as_text(original: Original, dice: random.Random) -> list[Edit]:
  """Return edits that write a question mark for what is not UTF-8, as an editor does."""
  edits = []
  place = 0
  while place < len(original.data):
    try:
      original.data[place:].decode()
      break
    except UnicodeDecodeError as error:
      start, stop = place + error.start, place + error.end
      edits.append(Edit(start, stop, '\ufffd'.encode()))
      place = stop
  return edits


def behind(original: Original, dice: random.Random) -> list[Edit]:
  """Return an edit that puts bytes behind the file."""
  size = len(original.data)
  return [Edit(size, size, dice.choice([bytes(512), b'\xff' * 100, PAGE]))]


def twice(original: Original, dice: random.Random) -> list[Edit]:
  """Return an edit that writes the file twice."""
  size = len(original.data)
  return [Edit(size, size, original.data)]


def zeros(original: Original, dice: random.Random) -> list[Edit]:
  """Return a file of zeros, as a full disk leaves it."""
  return _whole(original, bytes(len(original.data)))


def packed(original: Original, dice: random.Random) -> list[Edit]:
  """Return the file packed by gzip, its name unchanged."""
  return _whole(original, gzip.compress(original.data, mtime=0))


def empty(original: Original, dice: random.Random) -> list[Edit]:
  """Return an empty file."""
  return _whole(original, b'')


def page(original: Original, dice: random.Random) -> list[Edit]:
  """Return a web page or a pointer of Git LFS in place of the file."""
  return _whole(original, dice.choice([PAGE, POINTER]))


def _whole(original: Original, data: bytes) -> list[Edit]:
  return [Edit(0, len(original.data), data)]


DAMAGES: dict[str, Damage] = {
  'a bit': one_bit,
  'cut': cut,
  'a bit of the structure': one_bit_of_structure,
  'a few bits': a_few_bits,
  'cut at the end': cut_at_the_end,
  'a byte': a_byte,
  'a byte lost': byte_lost,
  'a bit of the structure, again': one_bit_of_structure,
  'a block of zeros': block_of_zeros,
  'cut in the head': cut_in_the_head,
  'a byte more': byte_more,
  'a block lost': block_lost,
  'blocks swapped': blocks_swapped,
  'a bit, again': one_bit,
  'LF to CR LF': line_ends,
  'saved as text': saved_as_text,
  'bytes behind': behind,
  'written twice': twice,
  'zeros only': zeros,
  'gzipped': packed,
  'empty': empty,
  'another file': page,
}
