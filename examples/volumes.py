"""Made-up volumes for `volumes_study.yaml` and the COINSTAC example in `coinstac_vbm`.

Each is a bright ball in noise, at a random place; in those of patients there is a brighter spot. No two sites have the
same scanner: noise and brightness differ.
"""

from __future__ import annotations

import numpy as np

SIDE = 16  # voxels
PEOPLE = (40, 64, 24, 48)  # of the sites


def volumes(site: int) -> tuple[np.ndarray, np.ndarray]:
    """Volumes [people, 1, 16, 16, 16] and who is a patient [people], of a site from 0."""
    generator = np.random.default_rng(site)
    people = PEOPLE[site]
    patients = generator.permutation(np.arange(people) % 2)
    axes = np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij"))
    centres = generator.uniform(6, 10, (people, 3, 1, 1, 1))
    ball = ((axes - centres) ** 2).sum(1) < 30
    spot = ((axes - centres - 2) ** 2).sum(1) < 9
    images = ball + 1.5 * spot * patients[:, None, None, None]
    images = images * generator.uniform(0.9, 1.1) + generator.normal(0, 0.2 + 0.1 * site, images.shape)
    return images[:, None].astype(np.float32), patients
