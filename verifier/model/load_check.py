"""placeholder"""
import numpy as np, torch
from verifier.errors import ModelError
def check(network, replay, lower=None, upper=None, seed=0, points=6):
    rng=np.random.default_rng(seed)
    for k in range(points):
        x=rng.uniform(size=network.n_inputs).astype(np.float32).astype(float)
        if lower is not None: x=lower+(upper-lower)*x
        y=replay.run(x); z=network.forward(torch.tensor(x[None]))[0].numpy()
        if not np.allclose(y,z,rtol=1e-3,atol=1e-3*np.abs(z).max()): raise ModelError(f'{y} {z}')
