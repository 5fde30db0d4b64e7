"""Programs of gates over integer levels, and their forms for SAT, CP and MILP solvers."""
