"""Discriminant information (DI): how well a ridge regression on features explains the labels.

With features X (N x d), targets Y (N x q), Xc and Yc their centered forms, and a ridge rho > 0,

    S = Xc^T Xc,  Cx = Xc^T Yc,  B = (S + rho I)^-1,  W = B Cx,
    DI = trace(Cx^T B Cx) = <Cx, W>.

0 <= DI <= TSS = ||Yc||^2, DI never falls when a feature is added and falls when rho grows. As
rho -> 0, DI / TSS is the explained share R^2 of the targets. What leaving the features G out would
cost needs no second factorisation:

    DI - DI_without_G = trace(W_G^T B_GG^-1 W_G),   for one feature j: ||W_j||^2 / B_jj.

DI is due to Hou & Kung (arXiv 2005.13796; ICPR 2020). The closed forms for leaving features out
and the sequential elimination are ours, derived by block inversion of S + rho I, and tested
against recomputing DI from nothing. As in the authors' code S is a sum over samples; our ridge is
relative to its trace, so that it need not be retuned for every N (they use 1e-4 or 0.1).
"""

from prunas.eval.criteria.discriminant.dual import (
    doubly_centered,
    dual_differential,
    dual_discriminant_information,
    dual_leave_out,
    dual_stand_alone,
    kernel_discriminant_information,
)
from prunas.eval.criteria.discriminant.elimination import (
    Elimination,
    eliminate,
    eliminate_jointly,
)
from prunas.eval.criteria.discriminant.groups import (
    Array,
    Groups,
)
from prunas.eval.criteria.discriminant.primal import (
    differential,
    discriminant_information,
    drops_of,
    leave_out,
    stand_alone,
)
from prunas.eval.criteria.discriminant.ridge import (
    RIDGE_SHARE,
    RidgeFit,
    fit,
    relative_ridge,
)
from prunas.eval.criteria.discriminant.scatter import (
    Scatter,
    is_scarce,
)

__all__ = [
    "RIDGE_SHARE",
    "Array",
    "Elimination",
    "Groups",
    "RidgeFit",
    "Scatter",
    "differential",
    "discriminant_information",
    "doubly_centered",
    "drops_of",
    "dual_differential",
    "dual_discriminant_information",
    "dual_leave_out",
    "dual_stand_alone",
    "eliminate",
    "eliminate_jointly",
    "fit",
    "is_scarce",
    "kernel_discriminant_information",
    "leave_out",
    "relative_ridge",
    "stand_alone",
]
