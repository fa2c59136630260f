from .label_sets import AVATARS as AVATARS
from .label_sets import IGNORE as IGNORE
from .label_sets import LABEL_SETS as LABEL_SETS
from .label_sets import LabelSet as LabelSet
from .label_sets import label_set as label_set
