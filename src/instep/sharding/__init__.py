"""Training on a mesh of devices, and on several processes."""

from ._place import (
    init_state as init_state,
    place as place,
    shard_batch as shard_batch,
    state_sharding as state_sharding,
)
from ._processes import ProcessLostError as ProcessLostError, processes as processes
from ._sharding import (
    Sharding as Sharding,
    by_name as by_name,
    data_parallel as data_parallel,
    fsdp as fsdp,
)
