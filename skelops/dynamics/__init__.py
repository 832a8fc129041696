"""Lagrangian dynamics of skeletons: M(q) qdd + C(q, qd) qd + g(q) = tau on a tree of bodies.

A ``Tree`` is made from ``Body`` descriptions or from degrees of freedom. Coordinates are (..., n),
one per degree of freedom, in the units of the tree (metres, radians, kilograms, seconds).
"""

from skelops.dynamics.bodies import BodyModel, body_model, joint_masses
from skelops.dynamics.coordinates import Frame, rotation_coordinates
from skelops.dynamics.differences import acceleration, velocity
from skelops.dynamics.learned import energy_consistency_loss
from skelops.dynamics.terms import (
    LagrangeTerms,
    bias_force,
    center_of_mass,
    coriolis_matrix,
    gravity_force,
    kinetic_energy,
    lagrange_terms,
    potential_energy,
)
from skelops.dynamics.torques import Derivatives, Torques, derivatives, torques
from skelops.ops import (
    forward_dynamics,
    forward_kinematics,
    inverse_dynamics,
    lagrange_tau,
    mass_matrix,
    point_dynamics,
    sym_packed_matvec,
    tree_solve,
)
from skelops.ops._tree import Body, Tree

__all__ = [
    "Body",
    "BodyModel",
    "Derivatives",
    "Frame",
    "LagrangeTerms",
    "Torques",
    "Tree",
    "acceleration",
    "bias_force",
    "body_model",
    "center_of_mass",
    "coriolis_matrix",
    "derivatives",
    "energy_consistency_loss",
    "forward_dynamics",
    "forward_kinematics",
    "gravity_force",
    "inverse_dynamics",
    "joint_masses",
    "kinetic_energy",
    "lagrange_tau",
    "lagrange_terms",
    "mass_matrix",
    "point_dynamics",
    "potential_energy",
    "rotation_coordinates",
    "sym_packed_matvec",
    "torques",
    "tree_solve",
    "velocity",
]
