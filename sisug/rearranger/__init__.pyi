from .grids import RearrangementGrid as RearrangementGrid
from .module import RearrangerModule as RearrangerModule
from .network import Rearranger as Rearranger
from .result import Rearrangement as Rearrangement
from .trained import TrainedRearranger as TrainedRearranger
from .trained import load_rearranger as load_rearranger
from .trained import write_rearranger as write_rearranger
