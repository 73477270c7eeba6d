"""Networks on graphs: N2 with its pseudo nodes and the peers that it is compared with."""

from jaxmodels.graphs.bucketed import Bucketed
from jaxmodels.graphs.graph import batch_graphs, make_graph
from jaxmodels.graphs.graph_method import graph_method
from jaxmodels.graphs.n2 import N2
from jaxmodels.graphs.peers import Peer
from jaxmodels.graphs.rows import Repeated, node_rows, on_rows
