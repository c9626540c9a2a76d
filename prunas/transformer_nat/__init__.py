"""Replacing redundant operators by cheaper ones (NAT and NAT++), and the networks of cells."""

from prunas.transformer_nat.canonical import canonical as canonical
from prunas.transformer_nat.cell_network import CellNetwork as CellNetwork
from prunas.transformer_nat.cell_transformations import CellTransformations as CellTransformations
from prunas.transformer_nat.cell_transformations import cell_transformations as cell_transformations
from prunas.transformer_nat.genes import WINDOW as WINDOW
from prunas.transformer_nat.genes import TransformationGenes as TransformationGenes
from prunas.transformer_nat.genotype import Cell as Cell
from prunas.transformer_nat.genotype import Genotype as Genotype
from prunas.transformer_nat.graph import Edge as Edge
from prunas.transformer_nat.graph import OperatorGraph as OperatorGraph
from prunas.transformer_nat.graph_convolution import GraphConvolution as GraphConvolution
from prunas.transformer_nat.graph_convolution import (
    released_graph_convolution as released_graph_convolution,
)
from prunas.transformer_nat.greedy_removal import GreedyRemoval as GreedyRemoval
from prunas.transformer_nat.lstm import Lstm as Lstm
from prunas.transformer_nat.method import Scored as Scored
from prunas.transformer_nat.method import State as State
from prunas.transformer_nat.method import Transformer as Transformer
from prunas.transformer_nat.method import chosen as chosen
from prunas.transformer_nat.method import forgotten as forgotten
from prunas.transformer_nat.method import state_from_json as state_from_json
from prunas.transformer_nat.method import state_to_json as state_to_json
from prunas.transformer_nat.methods import TRANSFORMERS as TRANSFORMERS
from prunas.transformer_nat.methods import transformers as transformers
from prunas.transformer_nat.methods import transformers_for as transformers_for
from prunas.transformer_nat.operator_cost import OperatorCost as OperatorCost
from prunas.transformer_nat.operator_cost import Place as Place
from prunas.transformer_nat.operator_cost import operator_cost as operator_cost
from prunas.transformer_nat.operators import EVERY_OPERATOR as EVERY_OPERATOR
from prunas.transformer_nat.operators import NAT_FULLY_CONCAT as NAT_FULLY_CONCAT
from prunas.transformer_nat.operators import NAT_LOOSE_END as NAT_LOOSE_END
from prunas.transformer_nat.operators import NAT_PLUS as NAT_PLUS
from prunas.transformer_nat.operators import OF_NETWORKS as OF_NETWORKS
from prunas.transformer_nat.operators import OPERATORS as OPERATORS
from prunas.transformer_nat.policy_search import PolicySearch as PolicySearch
from prunas.transformer_nat.published_cells import PUBLISHED as PUBLISHED
from prunas.transformer_nat.published_cells import published_genotype as published_genotype
from prunas.transformer_nat.randomly import RandomTransformation as RandomTransformation
from prunas.transformer_nat.recipe import Recipe as Recipe
from prunas.transformer_nat.replacement import Replacement as Replacement
from prunas.transformer_nat.replacement import replaced as replaced
from prunas.transformer_nat.simplify import simplified as simplified
from prunas.transformer_nat.skeleton import Skeleton as Skeleton
from prunas.transformer_nat.skeleton import cell_graph as cell_graph
from prunas.transformer_nat.skeleton import cifar_skeleton as cifar_skeleton
from prunas.transformer_nat.skeleton import imagenet_skeleton as imagenet_skeleton
from prunas.transformer_nat.skeleton import network_cost as network_cost
from prunas.transformer_nat.traced import TracedTransformations as TracedTransformations
from prunas.transformer_nat.traced import traced_transformations as traced_transformations
from prunas.transformer_nat.transformation import NothingToReplaceError as NothingToReplaceError
from prunas.transformer_nat.transformation import TransformationSpace as TransformationSpace
from prunas.transformer_nat.transformation import transformations as transformations
from prunas.transformer_nat.transitions import as_published as as_published
from prunas.transformer_nat.transitions import keep_skip_null as keep_skip_null
from prunas.transformer_nat.transitions import never_dearer as never_dearer
from prunas.transformer_nat.transitions import (
    never_dearer_but_identity as never_dearer_but_identity,
)
from prunas.transformer_nat.transitions import two_level as two_level
from prunas.transformer_nat.transitions import (
    two_level_of_networks as two_level_of_networks,
)
