"""Progressive bound tightening: pre-activation bounds neuron by neuron, by LP and then by MILP.

Tjeng, Xiao and Tedrake (2019), section 4.3: cheap procedures first, dearer ones only where a ReLU is still
undecided.  The caller brings interval and CROWN bounds; here, ReLU layer by ReLU layer,

    LP     the triangle relaxation of everything before the neuron, minimised and maximised; the certified
           value (``lp_certificate``) is the bound, so bounds that were rigorous stay rigorous
    MILP   the big-M program of everything before the neuron, stopped as soon as the sign is certain or a
           point shows that the neuron takes both; the dual bound less a margin is the bound, level TRUSTED

Only neurons that may still become stable are worked on, which a point can refute: one where a sample of the
network takes both signs is unstable for certain, so no MILP is asked; one where points of the relaxation take
both signs cannot be decided by LP, so no further LP is asked either, if only signs are wanted (``signs``;
Gleixner et al., "Three enhancements for optimization-based bound tightening", 2017, call it filtering).

Invariant: bounds only ever get tighter, and hold wherever the given ones do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from verifier.bounds.level import Bounds, Level
from verifier.deadline import Deadline
from verifier.encodings.milp.big_m import Encoding, ancestors, encode
from verifier.errors import SolverError
from verifier.model.network import Network
from verifier.progress import Event, Progress, silent
from verifier.solve.highs import minimise
from verifier.solve.highs_run import Options
from verifier.solve.lp import LinearPrograms
from verifier.solve.process import HighsProcess

Array = NDArray[np.float64]
Rebound = Callable[[Sequence[Bounds]], Sequence[Bounds]]
