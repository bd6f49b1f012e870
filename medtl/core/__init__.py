"""What every room uses: the values that cross rooms, text in configs as callables, trees and paths."""
