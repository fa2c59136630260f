from .grids import SynthesisGrid as SynthesisGrid
from .module import MapperModule as MapperModule
from .network import Mapper as Mapper
from .pair_module import PairMapperModule as PairMapperModule
from .quality import DrawnConditionQuality as DrawnConditionQuality
from .trained import TrainedMapper as TrainedMapper
from .trained import load_mapper as load_mapper
from .trained import write_mapper as write_mapper
