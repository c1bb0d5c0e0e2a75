"""PDU with the mask of its released code, with which its tables were made."""

from torch import Tensor

from mu.backbones import WeightedSum
from mu.data.batch import Batch
from mu.functional.tokens import logit_margin
from mu.methods.language.pdu import PDU


class PDUReference(PDU):
    """PDU whose mask on the logits is that of the unshifted labels.

    The logits that predict the first answer token do not count, and those after the answer's last
    token do. Arguments as in PDU; the dual variable moves once a step here too.
    """

    def margin(self, forget: Batch, prediction: Tensor) -> WeightedSum:
        labels = forget["labels"]
        return logit_margin(prediction[:, : labels.shape[1]], labels)
