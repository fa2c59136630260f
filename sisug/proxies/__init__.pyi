from .codebook import Codebook as Codebook
from .kmeans import KMeansFit as KMeansFit
from .kmeans import fit_kmeans as fit_kmeans
from .kmeans import match_labels as match_labels
from .online_clustering import OnlineClustering as OnlineClustering
