"""What a run fetches, the disk that it needs and the time that it takes, before it fetches."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from medtl import data
from medtl.data import ahead, arguments, class_names
from medtl.models.pretrained import checkpoint_files
from medtl.report import page
from medtl.run import assemble, components, cost, open_keys, run_folder, validate
from medtl.runtime import downloads, files, multihost
from medtl.runtime.downloads import Remote
from medtl.runtime.http_download import remote_size

UNKNOWN = 'size unknown'


def tell(config: ConfigDict, write: Callable[[str], Any]) -> None:
  """Print which files a run fetches, how large they are and how long the run takes.

  Nothing is printed where all files are here, or where the network is forbidden. Servers are asked
  for sizes. Steps are timed on random weights and pictures of zeros, if the data set is known ahead
  and a server has answered. Raises MedtlError where the files do not fit on the disk.
  """
  wanted = list(dict.fromkeys(remote_files(config)))
  missing = [remote for remote in wanted if not remote.path.is_file()]
  if not missing or downloads.offline():
    return
  sizes = _ask_sizes(missing)
  write('before anything is computed these files are fetched, each once:')
  for remote in wanted:
    size = _in_words(sizes[remote]) if remote in sizes else 'here already'
    write(f'  {size:>12}  {remote.what}  {remote.url}')
  described = _described(config)
  _tell_disk(sizes, described, write)
  answered = any(sizes.values())
  alone = multihost.host_share()[1] == 1  # of several processes some may have the files
  if answered and alone:
    _tell_time(config, described, write)


def remote_files(config: ConfigDict) -> Iterator[Remote]:
  """Yield the files that publishers serve to a run, to those beside it and to the one before it."""
  for _, changes in config.compare:
    yield from remote_files(assemble.with_changes(config, changes))
  described = _described(config)
  if described is not None:
    yield described.remote
  kind, _, name = config.model.weights.partition(':')
  if kind == 'run':
    if not Path(name).expanduser().is_dir():
      yield from remote_files(run_folder.load_config(name))
    return
  table = components.backbone_module(config).WEIGHTS
  checkpoint = checkpoint_files.remote(config.model.weights, table)
  if checkpoint is not None:
    yield checkpoint


def _ask_sizes(remotes: Sequence[Remote]) -> dict[Remote, int | None]:
  """Return the bytes of each file as its server tells them, all asked at the same time."""
  urls = [remote.url for remote in remotes]
  with ThreadPoolExecutor(len(urls)) as pool:
    sizes = list(pool.map(remote_size, urls))
  return dict(zip(remotes, sizes, strict=True))


def _described(config: ConfigDict) -> ahead.Ahead | None:
  """Return what is known of the config's data set before its file is here."""
  keys = arguments.fitted(data.load, config.data.to_dict())
  described = ahead.of(keys['name'], keys)
  if described is None:
    return None
  return described._replace(blank=class_names.renamed(described.blank, keys.get('rename', {})))


def _tell_disk(
  sizes: dict[Remote, int | None],
  described: ahead.Ahead | None,
  write: Callable[[str], Any],
) -> None:
  """Print the bytes that are fetched, what they become on the disk, and what is free there."""
  folder = downloads.cache_folder()
  fetched = sum(size or 0 for size in sizes.values())
  unpacked = described.unpacked if described and described.remote in sizes else 0
  least = '' if all(sizes.values()) else 'at least '
  amount = f'{least}{_in_words(fetched)}' if fetched else 'an unknown number of bytes'
  line = f'  together {amount} to fetch'
  if unpacked:
    line += f', {least}{_in_words(fetched + unpacked)} on the disk with its arrays unpacked'
  write(f'{line}; {_in_words(files.free_bytes(folder))} are free in {folder}')
  files.require_space(folder, fetched + unpacked, 'what this run fetches')


def _tell_time(
  config: ConfigDict, described: ahead.Ahead | None, write: Callable[[str], Any]
) -> None:
  """Print how long a run takes on this device, where that is known before the data are read."""
  keys = (*config.task.to_dict().values(), config.data.split.by, config.batch)
  if described is None or open_keys.AUTO in keys:
    write('  how long the run takes is told when the data have been read')
    return
  write('  timing a step of each phase on blank pictures …')
  sides = ahead.sides(described.blank, config.data.ops, config.data.split.to_dict())
  context = assemble.run_context(_from_chance(config), sides=sides)
  predicted = cost.estimate_cost(context, lambda _: None)
  time = page.duration(predicted.compiling + predicted.running)
  write(
    f'  about {time} on this device ({_in_words(predicted.memory)} of memory); '
    'fetching, reading and writing come on top'
  )


def _from_chance(config: ConfigDict) -> ConfigDict:
  """Return the config of a run that costs the same and needs no checkpoint."""
  policies = tuple(rule for rule in config.norms if rule[1] != 'target')
  changes = (
    ('model.weights', ''),
    ('random_frozen', True),
    ('mean', (0.5,)),
    ('std', (0.5,)),
    ('transfer', 'weights'),
    ('l2_sp', 0.0),
    ('norms', policies),
  )
  chance = assemble.with_changes(config, changes)
  validate.check_config(chance)
  return chance


def _in_words(size: float | None) -> str:
  """Return a number of bytes in words.

  >>> _in_words(18_800_000), _in_words(4_100_000_000), _in_words(None)
  ('18.8 MB', '4.1 GB', 'size unknown')
  """
  if size is None:
    return UNKNOWN
  return f'{size / 1e9:.1f} GB' if size >= 1e9 else f'{size / 1e6:.1f} MB'
