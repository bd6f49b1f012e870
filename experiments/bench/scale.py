"""What a step sends and holds on many devices: on paper for ViTs of four sizes, and as compiled for eight simulated devices.

A ring all-reduce of s bytes over n devices sends 2 (n − 1)/n · s from each, a gather or a scatter half of that (Patarasuk & Yuan 2009).
Data parallel: one all-reduce of the gradients of live leaves. fsdp: parameters gathered for the forward pass, live ones again for the
backward pass, gradients scattered: 3 (n − 1)/n · s where all are live (Rajbhandari et al. 2020, section 7.2). Hybrid: fsdp within a host
of 8, and an all-reduce of what each device keeps between the hosts. Gradients and parameters are float32.
"""

import os
import re

import jax
import jax.numpy as jnp
import numpy as np

from configs import base
from medtl.core import pytrees
from medtl.models import child_name
from medtl.models.backbones import vit
from medtl.run import assemble
from medtl.training import step

NETS = {
  'ViT-B/16': dict(width=768, depth=12, heads=12),
  'ViT-L/16': dict(width=1024, depth=24, heads=16),
  'ViT-H/14': dict(width=1280, depth=32, heads=16, patch=14),
  'ViT-g/14': dict(width=1536, depth=40, heads=24, patch=14),
}
DEVICES = (8, 64, 256, 1024)
FREEZE = {'nothing': 0.0, 'half': 0.5, 'all but the head': 1.0}
HOST = 8  # devices of one host
BYTES = {'f32': 4, 's32': 4, 'u32': 4, 'bf16': 2, 'f16': 2, 'pred': 1, 's64': 8, 'f64': 8}
COLLECTIVE = re.compile(
  r'= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\('
)


def parameters(**shape):
  """Return (parameters, those of the children below each depth) of a ViT."""
  net = vit.ViT(**shape)
  leaves = pytrees.flatten(
    jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)), train=False))[
      'params'
    ]
  )
  size = [
    sum(leaf.size for path, leaf in leaves.items() if path.startswith(f'{child_name(index)}/'))
    for index in range(net.stages + 1)
  ]
  return sum(leaf.size for leaf in leaves.values()), np.cumsum([0, *size])


def sent(whole, live, devices):
  """Return the bytes that each device sends in a step: {way: (within a host, between hosts)}."""
  part = lambda n: (n - 1) / n
  hosts = max(1, devices // HOST)
  data = 2 * part(devices) * 4 * live
  cut = part(devices) * 4 * (whole + 2 * live)
  return {
    'data': data,
    'fsdp': cut,
    'hybrid, within a host': part(HOST) * 4 * (whole + 2 * live),
    'hybrid, between hosts': 2 * part(hosts) * 4 * live / HOST,
  }


def held(whole, live, cut):
  """Return the bytes of parameters, gradients and Adam's two moments on a device, cut over so many."""
  return (4 * whole + 12 * live) / cut


def paper():
  """Print the table that is computed."""
  print(
    '| net | frozen | live | state, copied | state, fsdp=8 | '
    + ' | '.join(f'{n} devices' for n in DEVICES)
    + ' |'
  )
  print('|---|---|---:|---:|---:|' + '---:|' * len(DEVICES))
  for name, shape in NETS.items():
    whole, below = parameters(**shape)
    for words, share in FREEZE.items():
      live = whole - below[round(share * (len(below) - 1))] if share < 1 else 0
      live += 4 * (shape['width'] + 1)  # a head of four classes
      cells = [
        ' / '.join(f'{value / 1e6:,.0f}' for value in sent(whole, live, n).values())
        for n in DEVICES
      ]
      print(
        f'| {name} | {words} | {live / 1e6:,.1f} M | {held(whole, live, 1) / 1e9:.2f} GB | {held(whole, live, HOST) / 1e9:.2f} GB | '
        + ' | '.join(cells)
        + ' |'
      )
  print(f'\nMB that a device sends in a step: {" / ".join(sent(1, 1, 8))}.\n')


def compiled(**words):
  """Return {collective: bytes of its results} of a ViT-S/16's compiled step on eight simulated devices, and what paper says of each."""
  config = base.get_config()
  with config.unlocked():
    config.data = dict(
      name='phantom.load',
      patients=40,
      scans=2,
      scanner='target',
      size=(224, 224),
      seed=0,
      ops='',
      split=dict(by='patient', folds=4, fold=0, seed=0),
    )
    config.model = dict(name='vit.vit_s16', weights='')
    config.phases, config.batch = ((words.pop('freeze'), '2 epochs'),), 8
    config.mesh.update(words)
  made = assemble.run_context(config)
  found = {}
  for kinds, name in COLLECTIVE.findall(made.program(0).as_text()):
    size = sum(
      BYTES[kind] * int(np.prod([int(one) for one in shape.split(',') if one]))
      for kind, shape in re.findall(r'(\w+)\[([\d,]*)\]', kinds)
    )
    found[name] = found.get(name, 0) + size
  live = pytrees.count_parameters(step.select_live(made.params, made.phases[0].partition.live))
  return found, {
    'all-reduce': 4 * live,
    'all-gather': 4 * (pytrees.count_parameters(made.params) + live),
  }


def main(argv):
  """Print what is computed, then what eight simulated devices' programs say."""
  del argv
  os.environ['XLA_FLAGS'] = (
    f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={HOST}'
  )
  paper()
  print(
    '| ViT-S/16 on 8 simulated devices | frozen | collective | MB of results a device | on paper |\n|---|---|---|---:|---:|'
  )
  for words in (dict(data=8, fsdp=1), dict(data=1, fsdp=8)):
    for freeze in ('none', 'depth(0.5)'):
      found, expected = compiled(freeze=freeze, **words)
      for name, bytes_ in sorted(found.items()):
        print(
          f'| data={words["data"]}, fsdp={words["fsdp"]} | {freeze} | {name} | {bytes_ / 1e6:.1f} | '
          f'{expected.get(name, 0) / 1e6:.1f} |',
          flush=True,
        )
