"""Drivers of outside solvers: arrays in, checked outcomes out; no driver ever sees a layer."""
