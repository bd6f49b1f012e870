"""medtl: transfer learning in medical imaging, measured."""

__version__ = '0.1.0'
