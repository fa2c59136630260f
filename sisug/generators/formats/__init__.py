"""Generator files of all families (generators): read as data, never run, and brought to one form."""

from sisug.generators.formats.families import read_source
from sisug.generators.formats.source import Family, Source

__all__ = ["Family", "Source", "read_source"]
