"""torch.nn.functional's losses as pure functions."""

from ._binary_cross_entropy import (
    binary_cross_entropy as binary_cross_entropy,
    binary_cross_entropy_with_logits as binary_cross_entropy_with_logits,
)
from ._checks import checked as checked
from ._cosine_embedding import cosine_embedding_loss as cosine_embedding_loss
from ._cross_entropy import cross_entropy as cross_entropy
from ._ctc import ctc_loss as ctc_loss
from ._gaussian_nll import gaussian_nll_loss as gaussian_nll_loss
from ._hinge_embedding import hinge_embedding_loss as hinge_embedding_loss
from ._huber import huber_loss as huber_loss, smooth_l1_loss as smooth_l1_loss
from ._kl_div import kl_div as kl_div
from ._l1 import l1_loss as l1_loss
from ._linear_cross_entropy import linear_cross_entropy as linear_cross_entropy
from ._margin_ranking import margin_ranking_loss as margin_ranking_loss
from ._mse import mse_loss as mse_loss
from ._multi_margin import multi_margin_loss as multi_margin_loss
from ._multilabel_margin import multilabel_margin_loss as multilabel_margin_loss
from ._multilabel_soft_margin import (
    multilabel_soft_margin_loss as multilabel_soft_margin_loss,
)
from ._nll import nll_loss as nll_loss
from ._poisson_nll import poisson_nll_loss as poisson_nll_loss
from ._reduce import total_and_weight as total_and_weight
from ._soft_margin import soft_margin_loss as soft_margin_loss
from ._triplet_margin import (
    triplet_margin_loss as triplet_margin_loss,
    triplet_margin_with_distance_loss as triplet_margin_with_distance_loss,
)
