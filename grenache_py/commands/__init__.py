"""The commands of ``grenache-py``, by what they do; ``grenache_py.cli`` puts them together."""
