"""Training across sites that may not share their data: what they exchange, and when.

A strategy is a `weft.engine.Strategy`: a generator over sums (see docs/architecture.md, section 1). Every file here but
`means`, `wrapping` and `sizes` is one. `Payload` and `TopK` go around any of them.
"""

from weft.federated.dsgd import dSGD
from weft.federated.fedadam import FedAdam
from weft.federated.fedavg import FedAvg
from weft.federated.fedavgm import FedAvgM
from weft.federated.fedbn import FedBN
from weft.federated.fedprox import FedProx
from weft.federated.fedyogi import FedYogi
from weft.federated.payload import Payload
from weft.federated.powersgd import PowerSGD
from weft.federated.rankdad import rankDAD
from weft.federated.scaffold import SCAFFOLD
from weft.federated.sizes import encoded_bytes
from weft.federated.topk import TopK

__all__ = [
    "SCAFFOLD",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedBN",
    "FedProx",
    "FedYogi",
    "Payload",
    "PowerSGD",
    "TopK",
    "dSGD",
    "encoded_bytes",
    "rankDAD",
]
